"""What a large plan would take, for a question before it is started."""

from __future__ import annotations

import shutil
from pathlib import Path

# More than one of these asks for `--yes`.
MOST_TRIALS, MOST_HOURS, MOST_BYTES = 10_000, 24.0, 20e9
FEW_BYTES = 100e6  # are never asked for: a disk that is as full says so when it is written
# The least that a step of a trial takes on a core, and about what its statistics take on a disk. Measured.
STEP_SECONDS, STEP_BYTES = 2e-6, 60


def reasons(trials: int, trial_steps: int, workers: int, results: Path) -> list[str]:
    """Return what is large about so many trials with so many steps together; empty if nothing is."""
    hours = trial_steps * STEP_SECONDS / workers / 3600
    size, free = STEP_BYTES * trial_steps, _free(results)
    found = []
    if trials > MOST_TRIALS:
        found.append(f"{trials:,} trials")
    if hours > MOST_HOURS:
        found.append(f"at least {hours:,.0f} hours")
    if size > MOST_BYTES or (free is not None and size > max(free, FEW_BYTES)):
        there = f" of {free / 1e9:,.1f} GB that are free" if free is not None else ""
        found.append(f"about {size / 1e9:,.1f} GB of results{there}")
    return found


def _free(folder: Path) -> int | None:
    """Return the free bytes of the disk that has a folder, which need not exist yet."""
    existing = next((each for each in (folder, *folder.absolute().parents) if each.exists()), None)
    return shutil.disk_usage(existing).free if existing else None
