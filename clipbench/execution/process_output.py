"""The file of what a worker or a trial of a script prints: where it is, its last lines, and what is cut of it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipbench.execution.protocol import SPEAKER
from clipbench.plugins import user_modules
from clipbench.plugins.imported_files import is_installed

LOGS = "logs"  # folder beside the records
# A longer output is cut in the middle: its first and its last parts are kept.
MOST_OUTPUT, KEPT_OUTPUT = 20_000_000, 1_000_000
LAST_LINES, LONGEST_LINE = 3, 200  # of an output, in the error of a process that dies
# What `faulthandler` writes: a first line, then each thread with its innermost frame first, the main thread last.
HUNG = re.compile(r"^Timeout \([\d:.]+\)!$", re.M)
FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$', re.M)
MOST_FRAMES = 100_000  # bytes
IMPORTER = Path(str(user_modules.__file__))


def output_of(folder: Path, trial: str) -> Path:
    """Return the file of what the script of a trial prints."""
    return folder / LOGS / f"{trial}.txt"


def output_of_worker(folder: Path, place: int) -> Path:
    """Return the file of what a worker prints: the user's functions, warnings, and what a crash leaves."""
    return folder / LOGS / f"worker-{place}.txt"


def last_lines(log: Path, since: int = 0) -> str:
    """Return the last lines of an output, after the first `since` bytes, as a sentence."""
    lines = [line.strip() for line in end_of(log, 4000, since).splitlines() if line.strip()]
    own = [line[:LONGEST_LINE] for line in lines if not line.startswith(f"{SPEAKER}: ")][-LAST_LINES:]
    return f"Its last lines: {' | '.join(own)}." if own else "It has printed nothing."


@dataclass(frozen=True)
class HungPlace:
    """Where a process was when its time was over: a function of the user's, and whether it was imported there."""

    text: str
    imports: bool


def where_it_hung(log: Path, since: int) -> HungPlace | None:
    """Return where a process was when its time was over; None if it did not end so."""
    found = HUNG.split(end_of(log, MOST_FRAMES, since))
    if len(found) == 1:
        return None
    main = found[-1].rpartition("(most recent call first):")[2]
    frames = list(FRAME.finditer(main))
    own = [each for each in frames if each["file"][0] != "<" and not is_installed(Path(each["file"]))] or frames
    text = f"{own[0]['function']} ({Path(own[0]['file']).name}:{own[0]['line']})" if own else "an unknown function"
    return HungPlace(text, any(Path(each["file"]) == IMPORTER for each in frames))


def end_of(log: Path, most: int, since: int = 0) -> str:
    """Return the end of an output, after the first `since` bytes, of at most so many; empty if there is none."""
    size = size_of(log)
    try:
        with log.open("rb") as file:
            file.seek(max(since if since <= size else 0, size - most))  # it has been cut if it is shorter
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def size_of(log: Path) -> int:
    """Return the number of bytes of an output; 0 if there is none."""
    return log.stat().st_size if log.exists() else 0


def remove_empty(folder: Path) -> None:
    """Remove the outputs of workers that have printed nothing."""
    with suppress(OSError):  # there is something else in the folder
        for log in (folder / LOGS).glob("worker-*.txt"):
            if not size_of(log):
                log.unlink()
        (folder / LOGS).rmdir()


def cut(log: Path) -> None:
    """Keep the first and the last part of a long output. The process appends to it, at whatever length it has."""
    try:
        size = log.stat().st_size
        if size <= MOST_OUTPUT:
            return
        with log.open("r+b") as file:
            file.seek(size - KEPT_OUTPUT)
            last = file.read()
            file.seek(KEPT_OUTPUT)
            file.write(f"\n... {size - 2 * KEPT_OUTPUT:,} bytes of output left out ...\n".encode() + last)
            file.truncate()
    except OSError:
        return
