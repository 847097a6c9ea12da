"""Atomic writes, and file locks that the system releases when a process ends."""

from __future__ import annotations

import errno
import fcntl
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from clipbench.errors import ClipbenchError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLEAN_UP_SECONDS = 1.0  # longest time that a process holds a shared lock alone to clean up
DAMAGED = ".damaged"  # ends the name of a file that is set aside
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network file systems


def write_atomically(path: Path, content: Any) -> None:
    """Write a temporary file, sync it and rename it, so that readers see the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def remove(path: Path) -> None:
    with writing(path):
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a file, so that it is not read again, and return its new name."""
    aside = path.with_name(path.name + DAMAGED)
    with suppress(OSError):
        path.replace(aside)
    return aside


@contextmanager
def lock(path: Path, taken: str, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock, alone or shared, or raise the error `taken`, where HOLDER becomes the process that holds it."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab+", buffering=0)  # noqa: SIM115 - open as long as the lock is held
    with file:
        end = time.monotonic() + (CLEAN_UP_SECONDS if shared else 0)
        while not _flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB):
            if time.monotonic() > end:
                file.seek(0)
                pid = file.read().decode(errors="replace").strip()
                raise ClipbenchError(taken.replace("HOLDER", f"process {pid}" if pid else "another process"))
            time.sleep(CLEAN_UP_SECONDS / 20)
        with suppress(OSError):  # of a full disk: only the message of another process lacks this one
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold a lock alone, after waiting for it. Do nothing if no lock file can be created."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")  # noqa: SIM115 - open as long as the lock is held
    except OSError:
        yield
        return
    with file:
        _flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a message that names the file and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            remedy = "Free some disk space and run the same command again: saved trials are kept."
        else:
            remedy = "Choose a writable folder with `--results DIR`."
        raise ClipbenchError(f"{path}: cannot be written ({error.strerror or error}). {remedy}") from error


class DamagedFileError(ClipbenchError):
    """A file cannot be read because of what is in it."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the error of an unreadable or damaged file into a message that says what to do."""
    try:
        yield
    except Exception as error:
        if not (isinstance(error, OSError | ValueError | EOFError | zipfile.BadZipFile) or _is_of_arrow(error)):
            raise
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):  # no fault of what is in the file
            text = f"{path}: cannot be read ({error.strerror}). Check the disk and its permissions."
            raise ClipbenchError(text) from error
        raise DamagedFileError(
            f"{path}: the file is damaged or incomplete. "
            "Copy it again, or delete it: the next `clipbench run` trains its trials again."
        ) from error


def _is_of_arrow(error: Exception) -> bool:
    """Whether pyarrow raised an error; who writes a checkpoint does not import it."""
    return type(error).__module__.partition(".")[0] == "pyarrow"


def _flock(file: IO[Any], operation: int) -> bool:
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


def _sync_folder(folder: Path) -> None:
    """Sync a folder: only then a renamed file survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
