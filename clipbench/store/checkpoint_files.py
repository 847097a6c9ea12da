"""The files of training that is not finished yet: a line that says what is inside, and content checked by its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from clipbench.store.atomic_files import remove, set_aside, write_atomically

FOLDER = "checkpoints"
SUFFIX = ".checkpoint"
FORMAT = 1
MOST_BYTES = 10_000_000  # of the first line


class DamagedCheckpoint(Exception):
    """A file is not what its first line says."""


def path_of(folder: Path, stem: str) -> Path:
    """Return the file of the chunk that is called `stem`."""
    return folder / FOLDER / f"{stem}{SUFFIX}"


def write(path: Path, header: Mapping[str, Any], content: bytes) -> None:
    """Replace a checkpoint at once: the old one is there until the new one is whole."""
    known = {"format": FORMAT, "sha256": hashlib.sha256(content).hexdigest(), **header}
    write_atomically(path, json.dumps(known).encode() + b"\n" + content)


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the first line and the content."""
    with path.open("rb") as file:
        header, content = _header(file.readline(MOST_BYTES)), file.read()
    if hashlib.sha256(content).hexdigest() != header["sha256"]:
        raise DamagedCheckpoint("its content is cut or changed")
    return header, content


def begun(folder: Path, done: Collection[str], note: Callable[[str], None]) -> Iterator[list[str]]:
    """Yield the trials of each checkpoint of a results folder.

    One that is damaged is set aside, which is noted. One of which a trial is done is of no more use, and is removed.
    """
    for path in sorted((folder / FOLDER).glob(f"*{SUFFIX}")):
        try:
            trials = read(path)[0]["about"]["trials"]
        except (DamagedCheckpoint, KeyError, TypeError, OSError) as problem:
            aside = set_aside(path)
            note(f"{path} is damaged ({problem}): it was renamed to {aside.name}, and its trials begin anew.")
            continue
        if set(done).isdisjoint(trials):
            yield trials
        else:
            remove(path)


def count(folder: Path) -> int:
    """Return the number of checkpoints of a results folder."""
    return len(list((folder / FOLDER).glob(f"*{SUFFIX}")))


def end(folder: Path, stem: str) -> None:
    """Remove the checkpoint of a chunk, whose records are saved."""
    remove(path_of(folder, stem))


def _header(line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        raise DamagedCheckpoint("its first line cannot be read") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DamagedCheckpoint("it is of another version")
    return header
