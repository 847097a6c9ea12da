"""The commands that trained a store's trials, each with its versions and its machine, so that they can be repeated."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata

from clipbench.store.atomic_files import turn
from clipbench.store.folder import Store

FILE = "runs.json"
PACKAGES = ("clipbench", "torch", "numpy", "scipy", "pandas", "scikit-learn", "pyarrow")
MOST = 100  # the oldest are forgotten


@dataclass(frozen=True)
class TrainingRun:
    """One command that had something to train."""

    command: str
    trials: int  # that were missing when it began
    device: str = ""
    content_hash: str = ""  # of all trials that the command asked for
    git_commit: str = ""
    when: str = ""
    python: str = ""
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def begun(command: str, trials: int, device: str, content_hash: str, git_commit: str) -> TrainingRun:
    """A run that begins now, here."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return TrainingRun(command, trials, device, content_hash, git_commit, when, python(), machine(), versions())


def add(store: Store, run: TrainingRun) -> None:
    """Keep it beside the trials. Several that search into one folder may begin at once."""
    with turn(store.folder / f".{FILE}.lock"):
        known = [*read(store), run][-MOST:]
        store.write_text(FILE, json.dumps([asdict(each) for each in known], indent=2) + "\n")


def read(store: Store) -> list[TrainingRun]:
    """Those that are known, the oldest first; a file that is no longer readable knows nothing."""
    path = store.folder / FILE
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return []
    runs = map(_run, found if isinstance(found, list) else [])
    return [run for run in runs if run]


def _run(values: object) -> TrainingRun | None:
    """What can be read of an entry that others may have written."""
    if not isinstance(values, dict) or not isinstance(values.get("trials"), int):
        return None
    words = {
        each.name: str(values.get(each.name, ""))
        for each in fields(TrainingRun)
        if each.name not in ("trials", "versions")
    }
    known = values.get("versions")
    versions = {str(name): str(text) for name, text in known.items()} if isinstance(known, dict) else {}
    return TrainingRun(trials=values["trials"], versions=versions, **words) if words["command"] else None


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


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
