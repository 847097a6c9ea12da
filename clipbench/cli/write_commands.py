"""The commands that help to write an experiment: init, check, list and schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbench.cli.app import WRITING, app, complain, complain_of, say, say_json
from clipbench.cli.shared_options import Json, Quiet, Seeds, Sets
from clipbench.errors import InputError

if TYPE_CHECKING:
    from clipbench.cli.checked_file import CheckedFile


@app.command(rich_help_panel=WRITING)
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("experiment.yaml"),
    script: Annotated[
        str, typer.Option("--script", metavar="FILE.py", help="A training script of your own that it is about.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented experiment to start from."""
    from clipbench.config.template import write_template

    write_template(path, script=script, force=force)
    say([f"Wrote {path}. Next: clipbench check {path}"])


@app.command(rich_help_panel=WRITING)
def check(
    experiments: Annotated[list[Path], typer.Argument(metavar="EXPERIMENT.yaml", help="Experiment files.")],
    sets: Sets = None,
    seeds: Seeds = None,
    no_data: Annotated[bool, typer.Option("--no-data", help="Check the YAML alone.")] = False,
    no_import: Annotated[
        bool, typer.Option("--no-import", help="Check the YAML alone, and import no function that it names.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Validate experiments and report all mistakes at once.

    The data are loaded, and each model is built and takes a few steps. Your own functions are also evaluated once.
    """
    from clipbench.cli.experiment_summary import problem_values

    documents: list[dict[str, Any]] = []
    for path in experiments:
        try:
            found = _checked(path, tuple(sets or ()), seeds, no_data, no_import)
        except InputError as error:
            documents.append({"file": str(path), "ok": False, "problems": list(map(problem_values, error.problems))})
            complain_of(error)
        else:
            documents.append(found.values)
            say(() if as_json or quiet else found.lines)
    if as_json:
        say_json({"experiments": documents})
    if not all(document["ok"] for document in documents):
        raise typer.Exit(InputError.exit_code)


def _checked(path: Path, sets: tuple[str, ...], seeds: int | None, no_data: bool, no_import: bool) -> CheckedFile:
    """Return what is said of a file. Whatever the user's functions do, they do it in a worker."""
    from clipbench import config

    if no_import:
        from clipbench.cli.checked_file import described
        from clipbench.plugins.user_modules import Imports, imports

        with imports(Imports.LEFT_OUT):  # for what is said of its sweep too
            return described(config.load_without_imports(path, sets, seeds))
    if config.check_early(path, sets, seeds):  # nothing of the user's is called
        from clipbench.cli.checked_file import checked

        return checked(str(path), sets, seeds, not no_data)
    from clipbench.commands.find_and_plan import blamed_on
    from clipbench.execution.worker_pool import WorkerPool

    with blamed_on(path), WorkerPool(1) as pool:
        found: CheckedFile = pool.call("clipbench.cli.checked_file:checked", str(path), sets, seeds, not no_data)
        if printed := pool.printed():
            complain(printed)
    return found


@app.command(name="list", rich_help_panel=WRITING)
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(help="strategies, models, data, optimizers, losses, metrics, schedules or noise; default: all."),
    ] = None,
    name: Annotated[str | None, typer.Argument(help="Name of one of them, to show it in full.")] = None,
    as_json: Json = False,
) -> None:
    """List strategies, models, data sets and all other components.

    Each with its formula, its options and its reference.
    """
    from clipbench.cli import catalogue

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
    from clipbench.config.json_schema import experiment_schema

    say_json(experiment_schema())
