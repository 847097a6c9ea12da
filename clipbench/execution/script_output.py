"""The file of what a script prints in a trial: where it is, its last lines, and its middle that is left out."""

from __future__ import annotations

from pathlib import Path

from clipbench.execution.protocol import SPEAKER

LOGS = "logs"  # folder beside the records
# A longer output is cut in the middle: its first and its last parts are kept.
MOST_OUTPUT, KEPT_OUTPUT = 20_000_000, 1_000_000
LAST_LINES, LONGEST_LINE = 3, 200  # of an output, in the error of a process that dies


def output_of(folder: Path, trial: str) -> Path:
    """Return the file of what the script of a trial prints."""
    return folder / LOGS / f"{trial}.txt"


def last_lines(log: Path) -> str:
    """Return the last lines of an output as a sentence."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4000))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    own = [line[:LONGEST_LINE] for line in lines if not line.startswith(f"{SPEAKER}: ")][-LAST_LINES:]
    return f"Its last lines: {' | '.join(own)}." if own else "It has printed nothing."


def cut(log: Path) -> None:
    """Keep the first and the last part of a long output. The script appends to the file, at whatever length it has."""
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
