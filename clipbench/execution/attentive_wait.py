"""Waiting for processes, with a note of the time in which this process was stopped, as by Ctrl-Z."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

LATE_SECONDS = 2.0  # by which a wait may take longer without a stop, on a busy machine
RECENT_SECONDS = 10.0


class AttentiveWait:
    """Call it with connections. Times that other processes are allowed do not count while all are stopped."""

    def __init__(self) -> None:
        self.stopped = 0.0  # seconds, in the last wait
        self._at = -math.inf

    def __call__(self, connections: Sequence[Connection], seconds: float) -> list[Any]:
        """Return the connections that have something to say, after so many seconds at most."""
        began = time.monotonic()
        found = wait(connections, seconds)
        late = time.monotonic() - began - seconds
        self.stopped = late if late > LATE_SECONDS else 0.0
        if self.stopped:
            self._at = time.monotonic()
        return found

    @property
    def was_stopped(self) -> bool:
        """Whether this process was stopped a moment ago, and those that it waits for with it."""
        return time.monotonic() - self._at < RECENT_SECONDS
