"""The memory of this machine, or what a container, a scheduler or a service manager leaves of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SHARE = 0.9  # that all processes of a command may use together
OWN_GROUPS = Path("/proc/self/cgroup")  # the control groups of this process, a line for each hierarchy
ALL_GROUPS = Path("/sys/fs/cgroup")


def usable_memory() -> int | None:
    """Return the bytes that a command may use; None where the machine does not tell."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return int(SHARE * min([there, *_limits()]))


def _limits() -> Iterator[int]:
    """Yield the limits of the control groups that this process is in: a group may use what those around it may."""
    with suppress(OSError):  # not on Linux
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2 has one hierarchy for everything
                root, name = ALL_GROUPS, "memory.max"
            elif "memory" in controllers.split(","):
                root, name = ALL_GROUPS / "memory", "memory.limit_in_bytes"
            else:
                continue
            group = root / path.strip("/")
            # A container may see its own group as the root, whatever the path is outside of it.
            for folder in (group, *(around for around in group.parents if around.is_relative_to(root))):
                with suppress(OSError, ValueError):  # of another container, or "max"
                    yield int((folder / name).read_text())
