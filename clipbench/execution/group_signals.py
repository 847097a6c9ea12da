"""Signals that a terminal or a service manager sends to all processes at once: the parent alone obeys them."""

from __future__ import annotations

import os
import signal
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")


def leave_to_parent() -> None:
    """Do nothing at such a signal, so that a worker can keep what it has before the parent ends it."""
    owner = os.getpid()

    def wait_for_parent(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a child of the user's function, which was forked from this process
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for name in NAMES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), wait_for_parent)
