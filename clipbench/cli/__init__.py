"""The command line: load, call one function, print. The only package that prints or exits."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType

from clipbench.cli import machine_commands, mlflow_commands, pilot_command, run_commands, sweep_command, write_commands  # noqa: F401 - each declares its commands
from clipbench.cli.app import PANELS, app

__all__ = ["PANELS", "app", "main"]


def main() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    # `package.module:function` is found in the folder where the user stands, as it is for `python -m`. At the end, so
    # that no file there hides a library's.
    sys.path.append(os.getcwd())
    signal.signal(signal.SIGTERM, _interrupt)
    app()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Being asked to end is like Ctrl-C: what is saved stays, and the way to go on is said."""
    raise KeyboardInterrupt
