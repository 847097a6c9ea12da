"""A limit on the time of what the user's code does. It ends a process in which it hangs, even in compiled code."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from contextlib import contextmanager

SLACK = 0.05  # of the limit, by which it may come late: it is not set anew at each of a million short steps
FIRST_SECONDS = 20.0  # that the first steps may take longer, in which libraries are imported and kernels compiled


class TimeLimit:
    """What there is one of in a process. It is off until a process of its own asks for it, since that one would end."""

    is_on = False

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._more = 0.0  # seconds beside those of the steps
        self._allowed = 0.0  # seconds, when it was set last
        self._renew = 0.0  # when it is to be set again

    @contextmanager
    def within(self, seconds: float, first: float = FIRST_SECONDS) -> Iterator[None]:
        """Limit the time of each step that is taken within; the `first` ones may take so much longer."""
        before = self._seconds, self._more
        self._seconds, self._more = seconds if self.is_on else None, first
        try:
            yield
        finally:
            if self._seconds:
                faulthandler.cancel_dump_traceback_later()
            (self._seconds, self._more), self._allowed = before, 0.0
            self.renew()

    def end_first(self) -> None:
        """Note that the first steps are taken."""
        self._more = 0.0

    def renew(self, steps: int = 1) -> None:
        """Allow the time of so many steps from now on. What ends the process then writes where it was."""
        if not self._seconds:
            return
        now, allowed = time.monotonic(), self._seconds * steps + self._more
        if allowed != self._allowed or now > self._renew:
            slack = SLACK * self._seconds
            faulthandler.dump_traceback_later(allowed + slack, exit=True)
            self._allowed, self._renew = allowed, now + slack


TIME_LIMIT = TimeLimit()
