"""The command line: load, call one function, print. The only file that prints or exits."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clipbench import __version__
from clipbench.errors import ClipbenchError, InputError

# The panels of `--help`, in their order. The main commands come first.
MAIN = "Main commands"
WRITING = "Write an experiment"
PANELS = (MAIN, WRITING)


class Commands(TyperGroup):
    """Where an error becomes its message and its exit code; a user's mistake never shows a traceback."""

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except ClipbenchError as error:
            complain(str(error))
            raise typer.Exit(error.exit_code) from None

    def format_commands(self, context: Any, formatter: Any) -> None:
        """The panels in the order of PANELS."""
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


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich panels would take three quarters of the time that `--help` has
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace a value of the YAML; repeatable."),
]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, metavar="N", help="Train seeds 0 to N-1.")]
Json = Annotated[bool, typer.Option("--json", help="One machine-readable document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.")]


def main() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


def say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def complain(text: str) -> None:
    print(text, file=sys.stderr)


def say_json(document: Any) -> None:
    print(json.dumps(_strict(document), indent=2, ensure_ascii=False, allow_nan=False))


def _strict(value: Any) -> Any:
    """JSON has no infinity; it is said as text."""
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


@app.command(rich_help_panel=WRITING)
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("experiment.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a commented experiment to start from."""
    from clipbench.template import write_template

    write_template(path, force=force)
    print(f"Wrote {path}. Next: clipbench check {path}")


@app.command(rich_help_panel=WRITING)
def check(
    experiments: Annotated[list[Path], typer.Argument(metavar="EXPERIMENT.yaml", help="The files to check.")],
    sets: Sets = None,
    seeds: Seeds = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Validate experiments, and say everything that is wrong at once."""
    from clipbench import spec
    from clipbench.summary import problem_values, summary, summary_lines

    documents: list[dict[str, Any]] = []
    for path in experiments:
        try:
            experiment = spec.load(path, sets or (), seeds)
        except InputError as error:
            documents.append(
                {"file": str(path), "ok": False, "problems": list(map(problem_values, error.problems))}
            )
            complain(str(error))
        else:
            documents.append(summary(experiment))
            say(() if as_json or quiet else summary_lines(experiment))
    if as_json:
        say_json({"experiments": documents})
    if not all(document["ok"] for document in documents):
        raise typer.Exit(InputError.exit_code)


@app.command(name="list", rich_help_panel=WRITING)
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="strategies, models, data, optimizers, losses or metrics; else all.")
    ] = None,
    name: Annotated[str | None, typer.Argument(help="One of them, in full.")] = None,
    as_json: Json = False,
) -> None:
    """Show what there is, a line each with its formula and options."""
    from clipbench import catalogue

    kinds = [catalogue.known_kind(kind)] if kind else list(catalogue.KINDS)
    if as_json:
        found = {each: catalogue.described(each) for each in kinds}
        say_json({each: [one for one in ones if name in (None, one["name"])] for each, ones in found.items()})
    elif name:
        say(catalogue.full_lines(kinds[0], name))
    else:
        for number, each in enumerate(kinds):
            say([""] if number else [])
            say(catalogue.list_lines(each))


@app.command(rich_help_panel=WRITING)
def schema() -> None:
    """Print the JSON Schema of the YAML, for editors."""
    from clipbench.schema import experiment_schema

    say_json(experiment_schema())
