"""The file `engine.json`: whether the trials of a cohort are trained one after another, chosen by time, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from clipbench.errors import InputError, Place
from clipbench.store import json_document
from clipbench.store.atomic_files import wait_for_lock
from clipbench.store.folder import Store
from clipbench.store.json_document import DocumentError

FILE = "engine.json"
# The other path must gain so much, so that the choice is hardly ever one of chance.
GAIN = 1.1


@dataclass(frozen=True)
class PathChoice:
    """The times of a step of one trial of a cohort, in seconds."""

    engine: str  # how its trials are trained together
    together: float
    looped: float

    @property
    def loop_reason(self) -> str:
        """Why trials are trained one after another; empty if they are not."""
        if self.together <= GAIN * self.looped:
            return ""
        times = f"{1000 * self.looped:.3g} ms a step, and {1000 * self.together:.3g} ms by the engine {self.engine}"
        return f"one after another, its trials are faster: {times}"


CHOICES = TypeAdapter(dict[str, PathChoice])


def add(store: Store, choices: Mapping[str, PathChoice]) -> None:
    """Keep the choices of cohorts that have none yet: several sweeps of one folder may begin at the same time."""
    with wait_for_lock(store.folder / f".{FILE}.lock"):
        store.write_text(FILE, json_document.dump(CHOICES, {**choices, **read(store)}))


def read(store: Store) -> dict[str, PathChoice]:
    """Return the choices by the id of the cohort. A file that cannot be read has none."""
    try:
        return json_document.load(CHOICES, (store.folder / FILE).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, DocumentError):
        return {}


def plain(store: Store) -> dict[str, Any]:
    """Return the choices as plain values."""
    choices: dict[str, Any] = CHOICES.dump_python(read(store))
    return choices


def add_plain(store: Store, choices: Mapping[str, Any], place: Place) -> None:
    """Keep choices of plain values; raise InputError at the place if they are none."""
    try:
        found = CHOICES.validate_python(choices)
    except ValidationError:
        raise InputError.at(place, "expected an engine and two times for each entry.") from None
    if found:
        add(store, found)
