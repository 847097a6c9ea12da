"""Who trains a point: of one whose process is gone, somebody else takes it over."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipbench.errors import ClipbenchError

BEAT = 60.0  # seconds between two signs of life
STALE = 15 * BEAT  # without one, a process on another machine is taken for dead


def this_process() -> str:
    """A name that no other process has, nor had."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(owner: str, beat: float | None) -> bool:
    """Whether the process of that name ended; `beat` is its last sign of life, in seconds since 1970."""
    host, pid, started = [*owner.rsplit(":", 2), "", ""][:3]
    if host == socket.gethostname() and pid.isdecimal():
        return _started(int(pid)) != started
    return beat is None or time.time() - beat > STALE


@contextmanager
def heartbeat(sign_of_life: Callable[[], None]) -> Iterator[None]:
    """Give a sign of life at once, before anything is owned, and again and again, however long a round takes."""
    sign_of_life()
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            with suppress(ClipbenchError):  # a storage that is away for a moment; training says it if it is for good
                sign_of_life()

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join(BEAT)


def _started(pid: int) -> str:
    """When a process began, as the system says it: numbers of processes are given again. Empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "" if Path("/proc/self").exists() else _running(pid)


def _running(pid: int) -> str:
    """Where a system has no such files."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"
