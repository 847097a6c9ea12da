"""The process that all workers are forked from, which imports torch once; the parent itself never does."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker, spawn
from typing import Any

# Imported once by the process from which all workers are forked; the parent itself never imports torch.
WORKER = "clipbench.execution.worker"
WORKER_NAME, SCRIPT_NAME = "clipbench worker", "clipbench script"  # of processes
PRELOAD = ("clipbench.execution.preload", WORKER)
PRELOAD_FOR_SCRIPTS = ("clipbench.scripts.trial_process",)


def start_importing(is_script: bool = False) -> None:
    """Start the process that workers are forked from, so that it imports torch while this process goes on."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver  # a report that needs no workers does without it

        wanted = (*PRELOAD, *(PRELOAD_FOR_SCRIPTS if is_script else ()))
        if missing := [module for module in wanted if module not in _preloaded]:
            _end_importing(forkserver)  # of a run before, in the same Python process
            _preloaded.extend(missing)
            multiprocessing.set_forkserver_preload(_preloaded)
            atexit.register(_end_importing, forkserver)
        with uninterrupted_children():
            forkserver.ensure_running()


_preloaded: list[str] = []  # what the process that workers are forked from imports, in this order


def _end_importing(forkserver: Any) -> None:
    """End the process that imports torch, which would hold a pipe open that reads what this one prints."""
    server: Any = getattr(forkserver, "_forkserver", None)
    if pid := getattr(server, "_forkserver_pid", None):
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(server._forkserver_alive_fd)
        # As the module does when it finds its server dead: it starts another one when it is asked.
        server._forkserver_address = server._forkserver_alive_fd = server._forkserver_pid = None


@contextmanager
def uninterrupted_children() -> Iterator[None]:
    """Block Ctrl-C in the processes that are started within: no traceback if one is interrupted early."""
    resource_tracker.ensure_running()  # its start would reset the mask
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_preparation_data = spawn.get_preparation_data


def _without_main(name: str) -> dict[str, Any]:
    """Keep our processes from importing the script that started them, which would call `clipbench.run` once more.

    They call functions by their names and need nothing of the script, so it takes no `if __name__ == "__main__"`.
    """
    data = _preparation_data(name)
    if name in (WORKER_NAME, SCRIPT_NAME):
        data.pop("init_main_from_path", None)
        data.pop("init_main_from_name", None)
    return data


spawn.get_preparation_data = _without_main
