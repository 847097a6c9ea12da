"""Who trains a point: of one whose process is gone, somebody else takes it over."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

STALE = 3600.0  # seconds without a sign of life after which a process on another machine is taken for dead
BEAT = 60.0  # seconds between two signs of life


def this_process() -> str:
    """A name that no other process has, nor had."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(owner: str, beat: float | None) -> bool:
    """Whether the process of that name ended; `beat` is its last sign of life, in seconds since 1970."""
    host, pid, started = [*owner.rsplit(":", 2), "", ""][:3]
    if host == socket.gethostname() and pid.isdecimal():
        return _started(int(pid)) != started
    return beat is None or time.time() - beat > STALE


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
