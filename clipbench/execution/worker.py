"""A worker process: it receives tasks, runs each in one thread, and sends back the results."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from clipbench import engine
from clipbench.engine.checkpoint import write_when_asked
from clipbench.errors import ClipbenchError
from clipbench.execution.protocol import DONE, EPOCH_END, FAILED, PROGRESS

PROGRESS_SECONDS = 0.1  # between two messages of progress


def serve(connection: Connection, place: int) -> None:
    """Run tasks until the parent closes the connection; workers of different places use different GPUs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    write_when_asked()
    os.dup2(2, 1)  # the prints of a user's function must not mix with the tables
    # A data loader has processes of its own, which end when this one does; a daemon must not start any.
    multiprocessing.current_process().daemon = False
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # One thread each, as many processes as cores: kernels this small gain nothing from more threads.
    torch.set_num_threads(1)
    # After convergence, momentum and softmax tails turn into denormal numbers, which are many times slower.
    torch.set_flush_denormal(True)
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # products as on a CPU
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(_result(connection, *task))


def _result(
    connection: Connection,
    function: str,
    arguments: Sequence[Any],
    messages: Sequence[str],
    options: Mapping[str, Any],
) -> tuple[str, Any]:
    callbacks = [CALLBACKS[message](connection) for message in messages]
    module, _, name = function.partition(":")
    try:
        return DONE, getattr(importlib.import_module(module), name)(*arguments, *callbacks, **options)
    except ClipbenchError as error:
        return FAILED, error
    except Exception as error:  # noqa: BLE001 - any error of a user's function becomes a failed trial
        if isinstance(error, torch.OutOfMemoryError):  # the halves of the chunk come next
            engine.release_memory()
        return FAILED, f"{type(error).__name__}: {error}"


def _progress(connection: Connection) -> Callable[[int], None]:
    """Send progress in few messages: a cohort of tiny models trains thousands of epochs a second."""
    pending, sent = 0, time.monotonic()

    def progress(done: int) -> None:
        nonlocal pending, sent
        pending += done
        if time.monotonic() - sent > PROGRESS_SECONDS:
            connection.send((PROGRESS, pending))
            pending, sent = 0, time.monotonic()

    return progress


def _epoch_end(connection: Connection) -> Callable[[int, Any], Any]:
    """Send what was measured at the end of an epoch, and wait for the trials to prune."""

    def report(epoch: int, measured: Any) -> Any:
        try:
            connection.send((EPOCH_END, (epoch, measured)))
            return connection.recv()
        except (EOFError, OSError):  # the parent has closed the connection
            os._exit(1)

    return report


CALLBACKS: Mapping[str, Callable[[Connection], Any]] = {PROGRESS: _progress, EPOCH_END: _epoch_end}


def _die_with_parent() -> None:
    """End this process when the parent is killed."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
