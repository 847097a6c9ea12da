"""Report subjects saved beside the trials, so that a report does not plan the experiment again.

Planning imports torch, a report does not need it. A saved subject is used only if the command, the experiment file and
every file that its plan was made from are unchanged.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from clipbench.analysis.subject import Subject
from clipbench.config.resolved_yaml import resolved
from clipbench.config.yaml_file import read_text
from clipbench.core.trial import digest
from clipbench.planning import source_files
from clipbench.planning.plan import Plan
from clipbench.store import run_history
from clipbench.store.atomic_files import remove
from clipbench.store.folder import Store

FOLDER = ".subjects"
MOST = 8  # per store, of different `--set` and `--seeds`; the oldest are removed


@dataclass(frozen=True)
class SubjectDocument:
    """The content of a saved file."""

    sources: Mapping[str, str]  # digests of the files that the plan was made from
    subject: Subject


@dataclass(frozen=True)
class Request:
    """A command about an experiment: the file, its text, and the options of the command."""

    path: str
    text: str
    sets: tuple[str, ...] = ()
    seeds: int | None = None
    command: str = "run"

    @classmethod
    def of(cls, path: str | Path, sets: Sequence[str] = (), seeds: int | None = None, command: str = "run") -> Request:
        """The request for the current text of the file."""
        return cls(str(path), read_text(Path(path)), tuple(sets), seeds, command)

    @property
    def key(self) -> str:
        """A hash of everything that determines the plan, except for the files that it was made from."""
        installed = (source_files.version(), run_history.versions(), run_history.python(), run_history.machine())
        return digest([*asdict(self).values(), str(Path(self.path).absolute()), *installed, sys.path])


def keep_of_plan(
    store: Store, plan: Plan, subject: Subject, sets: Sequence[str], seeds: int | None, command: str = "run"
) -> None:
    """Save the subject for the next command about the file of a plan, and for one about its copy in the store."""
    experiment = plan.experiment
    keep(store, Request(experiment.path, experiment.text, tuple(sets), seeds, command), plan, subject)
    copy = store.folder / "experiment.yaml"
    if copy.is_file() and copy.read_text("utf-8").startswith(resolved(experiment)):
        keep(store, Request.of(copy, command=command), plan, subject.read_from(copy))


def keep(store: Store, request: Request, plan: Plan, subject: Subject) -> None:
    """Save the subject of a request, if the files that its plan was made from are known."""
    if plan.sources is None:
        return
    content = _adapter().dump_python(SubjectDocument(plan.sources, subject), mode="json")
    store.write_text(f"{FOLDER}/{request.key}.json", json.dumps(content))  # which can write infinity
    known = sorted((store.folder / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in known[:-MOST]:
        remove(path)


def find(store: Store, request: Request) -> Subject | None:
    """The saved subject of a request; None if there is none, or if a source file has changed."""
    try:
        text = (store.folder / FOLDER / f"{request.key}.json").read_text("utf-8")
        found = _adapter().validate_json(text)
    except (OSError, ValueError):
        return None
    return found.subject if source_files.digests(found.sources) == found.sources else None


@cache
def _adapter() -> TypeAdapter[SubjectDocument]:
    return TypeAdapter(SubjectDocument)
