"""Where studies live: Optuna's journal in the results folder, or a database by its URL."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from clipbench.errors import ClipbenchError
from clipbench.store.files import turn, writable
from clipbench.tracking.uri import redact

JOURNAL = "sweep.journal"
DRIVERS = {"postgresql": "psycopg2-binary", "mysql": "pymysql"}  # what pip calls them
BLOCK = 2**16

# Progress is in the live table, and a mistake is said with its place: Optuna's own lines would stand between them.
optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_storage(folder: Path, url: str | None = None) -> BaseStorage:
    """The storage of all studies of an experiment."""
    if url is None:
        with writable(folder / JOURNAL):
            folder.mkdir(parents=True, exist_ok=True)
            return JournalStorage(Journal(folder / JOURNAL))
    try:
        return RDBStorage(url)
    except ImportError as error:
        package = DRIVERS.get(url.partition(":")[0].partition("+")[0])
        remedy = f" Type `pip install {package}`." if package else ""
        raise ClipbenchError(f"--storage {redact(url)}: {error}.{remedy}") from None
    except Exception as error:  # noqa: BLE001 - each database's driver has errors of its own
        lines = redact(str(error)).strip().splitlines() or [type(error).__name__]
        raise ClipbenchError(f"--storage {redact(url)}: cannot be opened: {lines[0].rstrip('.')}.") from None


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
        with turn(self._lock), writable(self._path), open(self._path, "rb+") as file:  # type: ignore[arg-type]
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
