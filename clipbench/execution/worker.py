"""What a worker process does: it waits for work, does it in one thread, and sends back what came of it."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from clipbench import engine  # noqa: F401 - imported before anybody waits for it
from clipbench.errors import ClipbenchError
from clipbench.execution.protocol import DONE, EPOCH_END, FAILED, PROGRESS, TRAIN

# Between two messages of progress, in seconds.
PATIENCE = 0.1


def serve(connection: Connection) -> None:
    """Answer calls until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.dup2(2, 1)  # what a user's function prints must not mix with the tables
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # One thread each, as many processes as cores: kernels this small gain nothing from more threads.
    torch.set_num_threads(1)
    # After convergence, momentum and softmax tails turn into denormal numbers, which are many times slower.
    torch.set_flush_denormal(True)
    while True:
        try:
            task, arguments = connection.recv()
        except EOFError:
            return
        connection.send(_outcome(task, arguments, connection))


def _outcome(task: str, arguments: tuple[Any, ...], connection: Connection) -> tuple[str, Any]:
    try:
        if task == TRAIN:
            asks, function, *rest = arguments
            questions = [_asking(connection)] if asks else []
            return DONE, _named(function)(*rest, _throttled(connection), *questions)
        return DONE, _named(task)(*arguments)
    except ClipbenchError as error:
        return FAILED, error
    except Exception as error:  # noqa: BLE001 - whatever a user's function raises becomes a failed trial
        return FAILED, f"{type(error).__name__}: {error}"


def _named(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _throttled(connection: Connection) -> Callable[[int], None]:
    """Progress in few messages: a cohort of tiny models finishes thousands of epochs a second."""
    pending, sent = 0, time.monotonic()

    def progress(done: int) -> None:
        nonlocal pending, sent
        pending += done
        if time.monotonic() - sent > PATIENCE:
            connection.send((PROGRESS, pending))
            pending, sent = 0, time.monotonic()

    return progress


def _asking(connection: Connection) -> Callable[[int, Any], Any]:
    """Ask the parent, and wait for its answer."""

    def ask(epoch: int, told: Any) -> Any:
        try:
            connection.send((EPOCH_END, (epoch, told)))
            return connection.recv()
        except (EOFError, OSError):  # the parent has hung up: nobody wants to know what comes of this
            os._exit(1)

    return ask


def _die_with_parent() -> None:
    """A killed parent must not leave workers behind that go on training for nobody."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
