"""What ends a process that trains: the end of its parent, and more memory than it may use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path

from clipbench.core.machine_memory import usable_memory

LOOK_SECONDS = 0.2  # between two looks at the memory


class MemoryLimit:
    """The bytes that this process may use, which may change; None for no limit."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most

    @property
    def is_exceeded(self) -> bool:
        return self.most is not None and memory_in_use() > self.most


def watch(memory: MemoryLimit, too_much: Callable[[], None], end: Callable[[], None]) -> None:
    """Call `end` when the parent process ends, and `too_much` when this one uses too much memory."""
    threading.Thread(target=_watch, args=(memory, too_much, end), daemon=True).start()


def _watch(memory: MemoryLimit, too_much: Callable[[], None], end: Callable[[], None]) -> None:
    parent = parent_process()
    if parent is None:
        return
    while not wait([parent.sentinel], LOOK_SECONDS):
        if memory.is_exceeded:
            too_much()
    end()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_in_use() -> int:
    """Return the memory in use by this process, in bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not on Linux: the most that it has ever used
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_for_each(workers: int) -> int | None:
    """Return the memory that each of so many workers may use, in bytes; None where the machine does not tell."""
    there = usable_memory()
    return None if there is None else there // workers
