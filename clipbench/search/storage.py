"""Where studies are stored: Optuna's journal in the results folder, or a database given by its URL."""

from __future__ import annotations

import json
import mmap
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from clipbench.errors import ClipbenchError
from clipbench.store.atomic_files import wait_for_lock, writing

if TYPE_CHECKING:
    from clipbench.search.database import Database

JOURNAL = "sweep.journal"

# Progress and errors are shown by clipbench.
optuna.logging.set_verbosity(optuna.logging.ERROR)


def storage_at(url: str | None) -> SweepJournal | Database:
    """Return the journal, or the database at a URL. Raise InputError if the URL cannot be that of a database."""
    if url is None:
        return SweepJournal()
    from clipbench.search.database import Database

    return Database(url)


class SweepJournal:
    """Optuna's journal in the results folder. A `Database` has the same methods."""

    name = JOURNAL

    def open(self, folder: Path) -> BaseStorage:
        """Open the storage of all studies of an experiment; create it if it does not exist."""
        path = folder / JOURNAL
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            backend = Journal(path)
        try:
            return JournalStorage(backend)
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
            reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
            remedy = (
                "Move the file away and run the same command again: the search starts over, but trains no trial twice."
            )
            raise ClipbenchError(f"{path}: the file is damaged ({reason}). {remedy}") from None

    def connection(self) -> AbstractContextManager[None]:
        """Turn the error of a lost storage into a message that says how to continue."""
        return nullcontext()

    def exclusive(self) -> AbstractContextManager[None]:
        """Wait for a lock among the processes that use the storage from other folders, if there can be any."""
        return nullcontext()


class Journal(JournalFileBackend):
    """Optuna's journal with a lock that the system releases, and safe against a process killed while it writes."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._lock_path = path.with_name(f".{path.name}.lock")

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines, after removing half a line of a killed process.

        The file is not synced, which would take longer than training an epoch: the system keeps what a killed process
        wrote, and the results of the trials are in the store.
        """
        text = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs)
        with wait_for_lock(self._lock_path), writing(self._path), open(self._path, "rb+") as file:
            if os.path.getsize(self._path):
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    whole = content.rfind(b"\n") + 1
                file.truncate(whole)
                file.seek(whole)
            file.write(text.encode())
