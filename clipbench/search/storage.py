"""Where studies are stored: Optuna's journal in the results folder, or a database given by its URL."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from clipbench.errors import ClipbenchError
from clipbench.store.atomic_files import wait_for_lock, writing

JOURNAL = "sweep.journal"
BLOCK = 2**16

# Progress and errors are shown by clipbench.
optuna.logging.set_verbosity(optuna.logging.ERROR)


def check_url(url: str | None) -> None:
    """Raise InputError if the URL cannot be that of a database."""
    if url is not None:
        from clipbench.search import database

        database.check(url)


def open_storage(folder: Path, url: str | None = None) -> BaseStorage:
    """Open the storage of all studies of an experiment; create it if it does not exist."""
    if url is None:
        return _journal(folder / JOURNAL)
    from clipbench.search import database

    return database.open_database(url)


def connection(url: str | None) -> AbstractContextManager[None]:
    """Turn the error of a lost database into a message that says how to continue."""
    if url is None:
        return nullcontext()
    from clipbench.search import database

    return database.connection(url)


def _journal(path: Path) -> JournalStorage:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = Journal(path)
    try:
        return JournalStorage(backend)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        remedy = "Move the file away and run the same command again: the search starts over, but trains no trial twice."
        raise ClipbenchError(f"{path}: the file is damaged ({reason}). {remedy}") from None


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
            file.truncate(_size_of_whole_lines(file))
            file.seek(0, os.SEEK_END)
            file.write(text.encode())


def _size_of_whole_lines(file: BinaryIO) -> int:
    size = file.seek(0, os.SEEK_END)
    while size:
        start = max(0, size - BLOCK)
        file.seek(start)
        if end := file.read(size - start).rfind(b"\n") + 1:
            return start + end
        size = start
    return 0
