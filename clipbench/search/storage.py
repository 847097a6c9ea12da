"""Where studies live: Optuna's journal in the results folder, or a database by its URL."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from clipbench.errors import ClipbenchError
from clipbench.store.atomic_files import wait_for_lock, writing

JOURNAL = "sweep.journal"
BLOCK = 2**16

# Progress is in the live table, and a mistake is said with its place: Optuna's own lines would stand between them.
optuna.logging.set_verbosity(optuna.logging.ERROR)


def check_url(url: str | None) -> None:
    """Whether it is a database's at all; raises InputError."""
    if url is not None:
        from clipbench.search import database

        database.checked(url)


def open_storage(folder: Path, url: str | None = None) -> BaseStorage:
    """The storage of all studies of an experiment."""
    if url is None:
        return _journal(folder / JOURNAL)
    from clipbench.search import database

    return database.opened(url)


def reached(url: str | None) -> AbstractContextManager[None]:
    """What talks to the storage stands in here: one that is lost says the way to go on."""
    if url is None:
        return nullcontext()
    from clipbench.search import database

    return database.reached(url)


@contextmanager
def alone(folder: Path, storage: BaseStorage) -> Iterator[None]:
    """The only one that asks for points or takes them over: two that count at once what is left would ask for more."""
    with wait_for_lock(folder / ".ask.lock"):
        if isinstance(storage, RDBStorage):
            from clipbench.search import database

            with database.alone(storage.engine):
                yield
        else:
            yield


def _journal(path: Path) -> JournalStorage:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = Journal(path)
    try:
        return JournalStorage(backend)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        remedy = "Move it away and type the same command: a search begins anew, and no trial is trained twice."
        raise ClipbenchError(f"{path}: is damaged ({reason}). {remedy}") from None


class Journal(JournalFileBackend):
    """Optuna's journal, so that a process can be killed amid a line, and with a lock that dies with its process."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._lock = path.with_name(f".{path.name}.lock")  # type: ignore[assignment]  # Optuna's is used nowhere else

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add whole lines. They are not forced onto the disk one by one, which takes longer than training an epoch:
        what a killed process wrote is there all the same, and what a trial came to is in the store."""
        text = "".join(f"{json.dumps(log, separators=(',', ':'))}\n" for log in logs)
        with wait_for_lock(self._lock), writing(self._path), open(self._path, "rb+") as file:  # type: ignore[arg-type]
            file.truncate(_whole(file))
            file.seek(0, os.SEEK_END)
            file.write(text.encode())


def _whole(file: BinaryIO) -> int:
    """The size without half a line at the end, which a killed process left: others wait until a line is written."""
    size = file.seek(0, os.SEEK_END)
    while size:
        start = max(0, size - BLOCK)
        file.seek(start)
        if end := file.read(size - start).rfind(b"\n") + 1:
            return start + end
        size = start
    return 0
