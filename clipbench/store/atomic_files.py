"""Files that appear whole or not at all, and locks that die with their process."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from clipbench.errors import ClipbenchError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MOMENT = 1.0  # seconds
NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network file systems


def write_whole(path: Path, content: Any) -> None:
    """Write bytes beside, sync, rename: a reader meets the old file or the new one, never half of one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        _sync_folder(path.parent)


def remove(path: Path) -> None:
    with writable(path):
        path.unlink(missing_ok=True)


@contextmanager
def lock(path: Path, taken: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock, alone or with others that share it, or fail with `taken`, where HOLDER is who has it."""
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115 - open as long as the lock is held
    with file:
        if not (_shares(file) if shared else _flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)):
            file.seek(0)
            pid = file.read().strip()
            raise ClipbenchError(taken.replace("HOLDER", f"process {pid}" if pid else "another process"))
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait for others, then be alone. Where no lock file can be made, nobody waits."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")  # noqa: SIM115 - open as long as the turn lasts
    except OSError:
        yield
        return
    with file:
        _flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            remedy = "Free some space and run the same command again: what is saved stays."
        else:
            remedy = "Choose a folder that can be written with `--results DIR`."
        raise ClipbenchError(f"{path}: cannot be written ({error.strerror or error}). {remedy}") from error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, pa.ArrowException) as error:
        if isinstance(error, PermissionError):
            raise ClipbenchError(f"{path}: cannot be read ({error.strerror}). Ask its owner.") from error
        raise ClipbenchError(
            f"{path}: is damaged, perhaps copied by half. "
            "Copy it again, or delete it: the next `clipbench run` trains its trials again."
        ) from error


def _shares(file: TextIO) -> bool:
    """Take a lock that others may share. Whoever cleans up first has it alone, for a moment."""
    end = time.monotonic() + MOMENT
    while not _flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB):
        if time.monotonic() > end:
            return False
        time.sleep(MOMENT / 20)
    return True


def _flock(file: TextIO, operation: int) -> bool:
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
    return True


def _sync_folder(folder: Path) -> None:
    """A renamed file survives a power cut only when its folder is on the disk as well."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
