"""The command report: compare what was trained, and print it in one of several formats."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipbench.cli.app import MAIN, app, complain, say, say_json
from clipbench.cli.shared_options import Grid, Json, Results, Seeds, Sets

if TYPE_CHECKING:
    from clipbench.analysis.strategy_ranks import Combined
    from clipbench.commands.session import Finished


class Format(StrEnum):
    """What `--format` takes."""

    terminal = "terminal"
    markdown = "markdown"
    html = "html"
    latex = "latex"
    csv = "csv"
    json = "json"


@app.command(rich_help_panel=MAIN)
def report(
    experiments: Annotated[
        list[str], typer.Argument(metavar="EXPERIMENT", help="Experiment files, or names of experiments.")
    ],
    layout: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.terminal,
    seeds: Seeds = None,
    sets: Sets = None,
    results: Results = Path("results"),
    grid: Grid = False,
    png: Annotated[bool, typer.Option("--png", help="Write the figures as PNG too.")] = False,
    as_json: Json = False,
) -> None:
    """Compare what was trained; write tables, figures and report.html.

    Nothing is trained. Several experiments are compared on one page.
    """
    from clipbench.commands.session import Settings
    from clipbench.search import confirmed_report

    settings = Settings(seeds=seeds, sets=tuple(sets or ()), results=results)
    finished, combined, page = confirmed_report.reports(experiments, settings, grid=grid, png=png)
    _show(finished, combined, Format.json if as_json else layout)
    for note in (note for each in finished for note in each.notes):
        complain(f"note: {note}")
    if page:
        complain(f"Combined report: {page}")


def print_report(finished: Finished) -> None:
    """Print the report of one experiment, and where its files are."""
    from rich.console import Console

    from clipbench.reporting.formats import terminal

    console = Console()
    with console.capture() as shown:
        terminal.render(finished.report, console)
    search = "search.csv, " if finished.swept else ""
    files = f"report.md, report.html, report.json, table.csv, table.tex, {search}figures/"
    say([shown.get()], is_drawn=True)
    say([f"Written: {finished.folder}/ {files}; records/, epochs/, steps/ for pandas."])
    if finished.report.settings:
        say([f"Use it: clipbench export {shlex.quote(str(finished.folder))}"])


def _show(finished: Sequence[Finished], combined: Combined, layout: Format) -> None:
    """One experiment in full; several together, except in the formats that are tables."""
    from clipbench.reporting.formats import csv_table, html, json_report, latex, markdown

    together = len(finished) > 1
    if layout is Format.json:
        say_json(json_report.combined_as_dict(combined))
    elif layout is Format.terminal and together:
        _print_combined(combined)
    elif layout is Format.terminal:
        print_report(finished[0])
    elif layout is Format.html:
        say([html.render_combined(combined) if together else (finished[0].folder / "report.html").read_text("utf-8")])
    elif layout is Format.markdown and together:
        say([markdown.render_combined(combined)])
    else:
        renders = {Format.markdown: markdown.render, Format.csv: csv_table.render, Format.latex: latex.render}
        say(renders[layout](each.report) for each in finished)


def _print_combined(combined: Combined) -> None:
    from rich.console import Console

    from clipbench.reporting.formats import terminal

    console = Console()
    with console.capture() as shown:
        terminal.render_combined(combined, console)
    say([shown.get()], is_drawn=True)
    say(["For the full report of one: clipbench report NAME"])
