"""The memory of this machine, or of its container."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/memory.max")  # the limit of a container
SHARE = 0.9  # that all processes of a command may use together


def usable_memory() -> int | None:
    """Return the bytes that a command may use; None where the machine does not tell."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    with suppress(OSError, ValueError):  # no container, or "max"
        there = min(there, int(CGROUP.read_text()))
    return int(SHARE * there)
