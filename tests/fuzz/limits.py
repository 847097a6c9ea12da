"""Limits of time and memory for one input, within this process."""

import os
import resource
import signal
from contextlib import contextmanager

SECONDS = 5  # of computing, so that other programs on the machine do not count
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
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _stop(number, frame):
    raise TookTooLong(f"{SECONDS} s")
