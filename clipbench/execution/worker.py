"""A worker process: it receives tasks, runs each in one thread, and sends back the results."""

from __future__ import annotations

import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch

from clipbench import engine
from clipbench.core.time_limit import TIME_LIMIT
from clipbench.engine.checkpoint import write_when_asked
from clipbench.errors import ALLOCATED, ClipbenchError, ClipbenchWarning, first_sentence
from clipbench.execution import group_signals, process_limits
from clipbench.execution.process_limits import MemoryLimit
from clipbench.execution.protocol import (
    DONE,
    EPOCH_END,
    FAILED,
    IMPORT,
    NOTE,
    OUT_OF_MEMORY,
    PROGRESS,
)
from clipbench.plugins import user_modules

PROGRESS_SECONDS = 0.1  # between two messages of progress


def serve(connection: Connection, place: int) -> None:
    """Run tasks until the parent closes the connection; workers of different places use different GPUs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    group_signals.leave_to_parent()
    write_when_asked()
    TIME_LIMIT.is_on = True
    if hasattr(os, "register_at_fork"):  # else the parent would wait for a process that the user's code leaves behind
        os.register_at_fork(after_in_child=connection.close)
    _send_notes(connection)
    user_modules.announce = lambda name: connection.send((IMPORT, name))
    memory = MemoryLimit()
    process_limits.watch(memory, lambda: os._exit(OUT_OF_MEMORY), lambda: os._exit(1))
    # A data loader has processes of its own, which end when this one does; a daemon must not start any.
    multiprocessing.current_process().daemon = False
    # One thread each, as many processes as cores: kernels this small gain nothing from more threads.
    torch.set_num_threads(1)
    # After convergence, momentum and softmax tails turn into denormal numbers, which are many times slower.
    torch.set_flush_denormal(True)
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # products as on a CPU
    log: Path | None = None
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        *call, surroundings = task
        memory.most = surroundings.memory
        if surroundings.log != log:
            log = surroundings.log
            _print_to(log)
        connection.send(_result(connection, *call))


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
    except BaseException as error:  # noqa: BLE001 - any error of a user's function becomes a failed trial
        lacks_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or ALLOCATED.search(str(error))
        if lacks_memory:  # the halves of the chunk come next
            engine.release_memory()
        return FAILED, f"{type(error).__name__}: {error if str(error) else first_sentence(error)}"


def _print_to(log: Path) -> None:
    """Send what is printed to a file, also by compiled code, and what a crash leaves."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for target in (1, 2):
        os.dup2(file, target)
    os.close(file)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()


def _send_notes(connection: Connection) -> None:
    """Send the warnings of clipbench as notes to the user; any other is printed."""
    print_it = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        if issubclass(category, ClipbenchWarning):
            connection.send((NOTE, str(message)))
        else:
            print_it(message, category, *where)

    warnings.showwarning = cast("Any", show)


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
