"""The file `runs.json`: the commands that trained a store's trials, with their versions and machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, OnErrorOmit, TypeAdapter, ValidationError, WrapValidator

from clipbench.store import json_document
from clipbench.store.atomic_files import wait_for_lock
from clipbench.store.folder import Store
from clipbench.store.json_document import DocumentError

FILE = "runs.json"
PACKAGES = ("clipbench", "torch", "numpy", "scipy", "pandas", "scikit-learn", "pyarrow")
MOST = 100  # older runs are dropped


def _or_empty(value: Any, handler: Callable[[Any], dict[str, str]]) -> dict[str, str]:
    try:
        return handler(value)
    except ValidationError:
        return {}


Text = Annotated[str, BeforeValidator(str)]


@dataclass(frozen=True)
class TrainingRun:
    """One command that trained."""

    command: Annotated[str, Field(min_length=1)]
    trials: int  # missing in the store when the command began
    device: Text = ""
    content_hash: Text = ""  # of all trials that the command asked for
    git_commit: Text = ""
    when: Text = ""
    python: Text = ""
    machine: Text = ""
    versions: Annotated[Mapping[str, str], WrapValidator(_or_empty)] = field(default_factory=dict)


RUNS = TypeAdapter(list[OnErrorOmit[TrainingRun]])


def begun(command: str, trials: int, device: str, content_hash: str, git_commit: str) -> TrainingRun:
    """Return the run of a command that begins now on this machine."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return TrainingRun(command, trials, device, content_hash, git_commit, when, python(), machine(), versions())


def add(store: Store, run: TrainingRun) -> None:
    """Append a run. Several sweeps of one folder may begin at the same time."""
    with wait_for_lock(store.folder / f".{FILE}.lock"):
        store.write_text(FILE, json_document.dump(RUNS, [*read(store), run][-MOST:]))


def read(store: Store) -> list[TrainingRun]:
    """Return the known runs, the oldest first. What cannot be read is left out."""
    try:
        return json_document.load(RUNS, (store.folder / FILE).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, DocumentError):
        return []


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def python() -> str:
    return platform.python_version()


def environment() -> dict[str, str]:
    """Return what numbers depend on beside the device."""
    return {**versions(), "Python": python(), "machine": machine()}


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
