"""Optuna's journal as a file in which a line that was lost, changed or added is noticed."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from clipbench.errors import ClipbenchError
from clipbench.store.atomic_files import wait_for_lock, writing

# Ends each line, as a key that Optuna does not read: the hash of the line and of everything before it.
CHECK, CHECK_LENGTH = b',"check":"', 16
END = b'"}\n'
TAIL = len(CHECK) + CHECK_LENGTH + len(END)


class DamagedJournalError(ClipbenchError):
    """A journal is not as it was written. `line`, counted from 1, is the first that is not known to be right."""

    def __init__(self, path: Path, line: int, whole: int) -> None:
        remedy = "Run the same command again: nothing is lost."
        super().__init__(f"{path}: the file was changed by another program during the search. {remedy}")
        self.line, self.whole = line, whole  # bytes before that line


class Journal(JournalFileBackend):
    """Optuna's journal with a lock that the system releases, and safe against a process killed while it writes.

    A line without a hash is taken as it is if it is the last one: other tools of Optuna may append to the file.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, or create it. Raise DamagedJournalError if it is not as it was written."""
        super().__init__(str(path))
        self._path = path
        self._lock_path = path.with_name(f".{path.name}.lock")
        self._hash = hashlib.sha256()
        self._read = self._lines = 0  # bytes and lines that are hashed
        self._checked = 0, 1  # bytes whose hash was found right, and the line after them
        with wait_for_lock(self._lock_path), open(path, "rb") as file:
            self._follow(file.read())

    @property
    def damage(self) -> DamagedJournalError:
        """Return the error of a file that is damaged after the last hash that was found right."""
        whole, line = self._checked
        return DamagedJournalError(self._path, line, whole)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines, after removing half a line of a killed process.

        The file is not synced, which would take longer than training an epoch: the system keeps what a killed process
        wrote, and the results of the trials are in the store.
        """
        with wait_for_lock(self._lock_path), writing(self._path), open(self._path, "rb+") as file:
            if os.path.getsize(self._path) < self._read:
                raise self.damage
            file.seek(self._read)
            self._follow(file.read())
            file.truncate(self._read)
            file.seek(self._read)
            file.write(b"".join(self._lines_of(logs)))

    def _lines_of(self, logs: list[dict[str, Any]]) -> Iterator[bytes]:
        known = self._hash.copy()
        for log in logs:
            body = json.dumps(log, separators=(",", ":")).encode()[:-1]
            line = body + CHECK + _check(known, body) + END
            known.update(line)
            yield line

    def _follow(self, content: bytes) -> None:
        """Hash the whole lines that come next, and compare their hashes."""
        for line in io.BytesIO(content):
            if not line.endswith(b"\n"):
                return  # of a killed process
            body, check = line[:-TAIL], line[-TAIL:]
            has_check = check.startswith(CHECK) and check.endswith(END)
            if has_check and check[len(CHECK) : -len(END)] != _check(self._hash, body):
                raise self.damage
            if not has_check and not _is_operation(line):
                raise self.damage
            self._hash.update(line)
            self._read += len(line)
            self._lines += 1
            if has_check:
                self._checked = self._read, self._lines + 1


def _check(before: Any, body: bytes) -> bytes:
    found = before.copy()
    found.update(body)
    return bytes(found.hexdigest()[:CHECK_LENGTH], "ascii")


def _is_operation(line: bytes) -> bool:
    """Whether a line without a hash is one of Optuna's."""
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and {"op_code", "worker_id"} <= found.keys()
