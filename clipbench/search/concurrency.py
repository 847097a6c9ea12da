"""Several processes that search one study: their heartbeats, and which of them has ended.

A point belongs to the search that asked for it. When that has ended, another one takes the point over.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clipbench.errors import ClipbenchError

HEARTBEAT_SECONDS = 60.0
STALE_SECONDS = 15 * HEARTBEAT_SECONDS  # without a heartbeat, a process on another machine is taken for dead


_numbers = itertools.count()
_searching: set[str] = set()  # names of the searches of this process that have not ended


def new_owner() -> str:
    """Return a name that no other search has or had: host, process id, start time and a number in the process."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_time(os.getpid())}:{next(_numbers)}"


class Heartbeats:
    """Knows by their heartbeats which processes have ended."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float | None, float]] = {}  # the last heartbeat, and when it was first seen here

    def has_ended(self, owner: str, heartbeat: float | None) -> bool:
        """Whether a process has ended, by its name and the time of its last heartbeat in seconds since 1970.

        A clock may be set back: a heartbeat that stays the same is old, whatever its time says.
        """
        host, pid, started, _ = [*owner.rsplit(":", 3), "", "", ""][:4]
        if host == socket.gethostname() and pid.isdecimal():
            is_ours = int(pid) == os.getpid()
            return _start_time(int(pid)) != started or (is_ours and owner not in _searching)
        if self._seen.get(owner, ("", 0.0))[0] != heartbeat:
            self._seen[owner] = heartbeat, time.monotonic()
        unchanged = time.monotonic() - self._seen[owner][1]
        return heartbeat is None or max(unchanged, time.time() - heartbeat) > STALE_SECONDS


@contextmanager
def heartbeats(owner: str, send: Callable[[], None]) -> Iterator[None]:
    """Send a heartbeat now, before the owner has a point, and then regularly."""
    send()
    _searching.add(owner)
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            with suppress(ClipbenchError):  # a storage that fails for longer is reported by the search itself
                send()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        _searching.discard(owner)
        ended.set()
        thread.join(HEARTBEAT_SECONDS)


def _start_time(pid: int) -> str:
    """When a process started, as the system counts it: process ids are reused. Empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "" if Path("/proc/self").exists() else _running(pid)


def _running(pid: int) -> str:
    """The same on a system without `/proc`, which tells only whether the process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "running"
