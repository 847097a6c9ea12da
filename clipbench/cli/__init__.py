"""The command line: load, call one function, print. The only package that prints or exits."""

from __future__ import annotations

import atexit
import io
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from clipbench.cli.app import PANELS, app

# Each declares its commands, in the order of `--help`.
# ruff: isort: off
from clipbench.cli import run_command, sweep_command, report_command, export_command  # noqa: F401
from clipbench.cli import pilot_command, write_commands, mlflow_commands, machine_commands  # noqa: F401
# ruff: isort: on

__all__ = ["PANELS", "app", "main"]


def main() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # the name of a file may have characters that a terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    # Find `package.module:function` in the current folder, as `python -m` does; last, so that no file there hides a
    # library.
    sys.path.append(os.getcwd())
    for number in signal.valid_signals() & {getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")}:
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, _interrupt)
    try:
        app()
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else int(end.code is not None))


def _leave(code: int) -> None:
    """End at once: taking all modules apart would keep the user waiting for a quarter of a second."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, as by `head`
            stream.flush()
    os._exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM and the end of the terminal as Ctrl-C: what is done stays, and the message says how to continue."""
    raise KeyboardInterrupt
