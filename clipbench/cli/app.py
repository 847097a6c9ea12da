"""The application: the layout of `--help`, printing, and how errors become messages and exit codes."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clipbench import __version__
from clipbench.errors import TEXT, ClipbenchError, json_without_control, shortened, without_control

# The panels of `--help`, in their order. The main commands come first.
MAIN = "Main commands"
WRITING = "Write an experiment"
TRACKING = "MLflow"
MACHINE = "This machine"
PANELS = (MAIN, WRITING, TRACKING, MACHINE)

FAILED, INTERRUPTED = 3, 130
UsageError: Any = typer.BadParameter.__base__  # of a wrong command line


class Commands(TyperGroup):
    """Turn errors into messages and exit codes; a mistake of a user never shows a traceback."""

    def make_context(self, *given: Any, **options: Any) -> Any:
        with _interruptions_said(), _usage_said_shortly():
            return super().make_context(*given, **options)

    def invoke(self, context: Any) -> Any:
        try:
            with _interruptions_said(), _usage_said_shortly():
                return super().invoke(context)
        except ClipbenchError as error:
            complain_of(error)
            raise typer.Exit(error.exit_code) from None

    def format_commands(self, context: Any, formatter: Any) -> None:
        """Write the panels in the order of PANELS."""
        for panel in PANELS:
            commands = [(name, self.commands[name]) for name in self.list_commands(context)]
            rows = [
                (name, command.get_short_help_str(limit=70))
                for name, command in commands
                if getattr(command, "rich_help_panel", None) == panel and not command.hidden
            ]
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)


@contextmanager
def _interruptions_said() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        complain(str(interrupt) or "Interrupted. Run the same command to continue.")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _usage_said_shortly() -> Iterator[None]:
    """Let typer's messages quote a long or a strange argument as our own do."""
    try:
        yield
    except UsageError as error:
        error.message = shortened(without_control(error.message), TEXT)
        raise


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's panels would make `--help` several times slower
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def say(lines: Iterable[str], *, is_drawn: bool = False) -> None:
    """Print lines to stdout; if it is closed, as by `head`, drop them and go on.

    Lines that are drawn have the control characters of their colours; others have none.
    """
    try:
        for line in lines:
            print(line if is_drawn else without_control(line))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str) -> None:
    print(without_control(text), file=sys.stderr)


def complain_of(error: Exception) -> None:
    """Print a message, and what was noted beside it."""
    complain("\n".join((str(error), *getattr(error, "__notes__", ()))))


def say_json(document: Any) -> None:
    say([json_without_control(json.dumps(_strict(document), indent=2, ensure_ascii=False, allow_nan=False))])


def _strict(value: Any) -> Any:
    """Replace numbers that JSON does not have by strings."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _version(wanted: bool) -> None:
    if wanted:
        print(f"clipbench {__version__}")
        raise typer.Exit


@app.callback()
def clipbench(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Which gradient-clipping strategy, at which threshold, does a model need, and does it matter at all?"""
