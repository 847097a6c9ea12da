"""Limits of time and memory for one input, within this process."""

import os
import resource
import signal
from contextlib import contextmanager

SECONDS = 5  # of computing, so that other programs on the machine do not count
WAITING = 60  # seconds of any kind, for what waits and does not compute
MEMORY = 2**30


class TookTooLong(Exception):
    """An input took more than its time."""


@contextmanager
def limited_memory():
    """Let this process have 1 GB more than it has, so that what takes more raises a MemoryError."""
    if not os.path.exists("/proc/self/statm"):  # not Linux
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def limited_time():
    timers = {signal.ITIMER_VIRTUAL: (signal.SIGVTALRM, SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, WAITING)}
    before = {number: signal.signal(number, _stop) for number, _ in timers.values()}
    for timer, (_, seconds) in timers.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, (number, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def _stop(number, frame):
    raise TookTooLong(f"{SECONDS} s of computing, or {WAITING} s of waiting")
