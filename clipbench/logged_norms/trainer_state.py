"""The file `trainer_state.json` of Hugging Face's Trainer, whose log has the norm of the gradient before clipping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipbench.errors import InputError, Place
from clipbench.logged_norms.logged_run import LoggedRun, run_of_table, table_of_rows

FILE, LOG = "trainer_state.json", "log_history"


def is_trainer_state(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get(LOG), list)


def read_trainer_state(path: Path, document: Mapping[str, Any]) -> LoggedRun:
    rows = [row for row in document[LOG] if isinstance(row, dict)]
    if not rows:
        raise InputError.at(Place(str(path), key=LOG), "the Trainer has logged nothing yet.")
    return run_of_table(str(path), table_of_rows(rows))


def newest_state(folder: Path) -> Path | None:
    """Return the file of a folder that the Trainer wrote, or that of its last checkpoint."""
    if (folder / FILE).is_file():
        return folder / FILE
    return max(folder.glob(f"checkpoint-*/{FILE}"), key=_step_of, default=None)


def _step_of(path: Path) -> int:
    found = re.search(r"\d+$", path.parent.name)
    return int(found[0]) if found else -1
