"""The command export: the answer of a report as Python code to paste."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clipbench.cli.app import MAIN, app, complain, say, say_json
from clipbench.cli.shared_options import Grid, Json, Results, Seeds, Sets
from clipbench.errors import InputError, Place


@app.command(rich_help_panel=MAIN)
def export(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="Name or results folder of an experiment that has run, or its file.")
    ],
    library: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="LIBRARY",
            help="torch, clipper, lightning, transformers or optax; default: torch if it has the rule, else clipper.",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", metavar="NAME", help="Another strategy at its best threshold, or an arm."),
    ] = None,
    setting: Annotated[
        str | None, typer.Option("--setting", metavar="LABEL", help="Which of several settings, such as lr=0.1.")
    ] = None,
    seeds: Seeds = None,
    sets: Sets = None,
    results: Results = Path("results"),
    grid: Grid = False,
    as_json: Json = False,
) -> None:
    """Print the code that uses the answer of a report in your own training.

    Nothing is trained or written. Only code goes to stdout.
    """
    from clipbench.commands.session import Settings
    from clipbench.search.exported_arm import exported_arm

    settings = Settings(seeds=seeds, sets=tuple(sets or ()), results=results)
    found = exported_arm(study, settings, strategy, setting, grid=grid)
    if as_json:
        say_json(_as_dict(found, library))
        return
    code = found.code(library)
    if not code.lines:
        raise InputError.at(Place(f"--to {library}" if library else study), code.why_not, code.remedy)
    say([found.comment, *code.lines])
    for note in found.notes:
        complain(f"note: {note}")


def _as_dict(found: Any, library: str | None) -> dict[str, Any]:
    codes = [found.code(library)] if library else found.coded.codes
    return {
        "study": found.study,
        "setting": found.setting.label,
        "arm": found.row.short,
        "strategy": found.row.strategy,
        "threshold": found.row.threshold,
        "tuning": found.row.tuning,
        "recommended": found.is_recommended,
        "verdict": found.verdict,
        "code": {code.library: code.text or None for code in codes},
        "why_not": {code.library: f"{code.why_not} {code.remedy}" for code in codes if code.why_not},
        "notes": list(found.notes),
    }
