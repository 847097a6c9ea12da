"""What a run says to MLflow, as plain values: the same however it is sent."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

NAME_LENGTH, PARAM_LENGTH, TAG_LENGTH, NOTE_LENGTH, DIGEST_LENGTH = 250, 6000, 5000, 8000, 36  # MLflow's limits
INPUT_TAGS = {"mlflow.data.context": "train"}  # of every data set
ENDED = ("FINISHED", "FAILED", "KILLED")

Point = tuple[str, float, int]  # name, value, epoch or step


@dataclass(frozen=True)
class DataInput:
    """The data set of a run. MLflow shows a link for some types of sources: `local`, `code`, `hugging_face`."""

    name: str
    digest: str
    source_type: str
    source: str  # JSON


@dataclass(frozen=True)
class RunValues:
    """Everything that is sent of a run, or added to one. A name has at most one point per epoch or step."""

    name: str = ""
    started: int = 0  # ms since 1970
    ended: int | None = None  # None: it goes on
    status: str = "RUNNING"
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Point, ...] = ()
    data: DataInput | None = None

    @property
    def when(self) -> int:
        """The time of all its points."""
        return self.started if self.ended is None else self.ended


@dataclass(frozen=True)
class MlflowRun:
    """A run that MLflow has."""

    id: str
    status: str
    started: int
    tags: Mapping[str, str]

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


@cache
def key(name: str) -> str:
    """Return a name that MLflow accepts: no brackets, no path with `..`."""
    clean = posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name)).lstrip("./")
    return clean[:NAME_LENGTH] or "_"
