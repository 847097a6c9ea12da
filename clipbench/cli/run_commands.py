"""The commands that train and compare: run and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipbench.cli.app import FAILED, MAIN, app, complain, say, say_json, uninterrupted
from clipbench.cli.options import (
    Devices,
    Format,
    Json,
    NoMlflow,
    Quiet,
    Results,
    Seeds,
    Sets,
    TrackingUri,
    Workers,
    settings_of,
)
from clipbench.commands.devices import Device

if TYPE_CHECKING:
    from clipbench.analysis.strategy_ranks import Combined
    from clipbench.commands.session import Finished, Session, Settings


@app.command(rich_help_panel=MAIN)
def run(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.yaml", help="The experiment.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, and how long it takes.")
    ] = False,
    device: Devices = Device.auto,
    workers: Workers = "auto",
    seeds: Seeds = None,
    sets: Sets = None,
    results: Results = Path("results"),
    tracking_uri: TrackingUri = None,
    no_mlflow: NoMlflow = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train what is missing, compare the arms, write the report, mirror to MLflow."""
    settings = settings_of(device, workers, seeds, sets, results, tracking_uri, no_mlflow)
    if dry_run:
        _preview(experiment, settings, as_json)
    else:
        _run(experiment, settings, as_json, quiet)


@app.command(rich_help_panel=MAIN)
def report(
    experiments: Annotated[
        list[str],
        typer.Argument(metavar="EXPERIMENT...", help="YAML files, or names of experiments that ran."),
    ],
    layout: Annotated[Format, typer.Option("--format", help="How it is printed.")] = Format.terminal,
    seeds: Seeds = None,
    sets: Sets = None,
    results: Results = Path("results"),
    grid: Annotated[
        bool, typer.Option("--grid", help="Compare the YAML's own thresholds, even after a sweep.")
    ] = False,
    png: Annotated[bool, typer.Option("--png", help="Write the figures as PNG too.")] = False,
    as_json: Json = False,
) -> None:
    """Compare what was trained, and write report.html, its figures and its tables beside it."""
    from clipbench.analysis.strategy_ranks import combine
    from clipbench.commands.session import Settings
    from clipbench.reporting.write import write_combined, write_pictures
    from clipbench.search import confirmed_report
    from clipbench.store import Store

    settings = Settings(seeds=seeds, sets=tuple(sets or ()), results=results)
    finished = [confirmed_report.report(experiment, settings, grid=grid) for experiment in experiments]
    for each in finished if png else ():
        write_pictures(each.subject, Store(each.folder), each.swept)
    combined = combine([each.report for each in finished])
    path = write_combined(combined, results) if len(finished) > 1 else None
    _show(finished, combined, Format.json if as_json else layout)
    if path:
        complain(f"All {len(finished)} together: {path}")


def _show(finished: Sequence[Finished], combined: Combined, layout: Format) -> None:
    """One experiment in full; several together, but for the formats that are tables."""
    from clipbench.reporting.formats import csv_table, html, json_report, latex, markdown

    together = len(finished) > 1
    if layout is Format.json:
        say_json(json_report.combined_as_dict(combined))
    elif layout is Format.terminal and together:
        _print_combined(combined)
    elif layout is Format.terminal:
        _print_report(finished[0])
    elif layout is Format.html:
        say([html.render_combined(combined) if together else (finished[0].folder / "report.html").read_text("utf-8")])
    elif layout is Format.markdown and together:
        say([markdown.render_combined(combined)])
    else:
        renders = {Format.markdown: markdown.render, Format.csv: csv_table.render, Format.latex: latex.render}
        say(renders[layout](each.report) for each in finished)


def _preview(experiment: Path, settings: Settings, as_json: bool) -> None:
    from clipbench.cli.summary import preview_document, preview_lines
    from clipbench.commands.run import preview

    found = preview(experiment, settings)
    if as_json:
        say_json(preview_document(found))
    else:
        say(preview_lines(found))


def _run(experiment: Path, settings: Settings, as_json: bool, quiet: bool) -> None:
    with uninterrupted():
        from clipbench.commands import run as running
        from clipbench.commands.progress import make_progress
        from clipbench.commands.session import Session

    session = Session(settings, make_progress(quiet=quiet))
    conclude(session, lambda: running.run(session, experiment), as_json, quiet)


def conclude(session: Session, work: Callable[[], Finished], as_json: bool, quiet: bool) -> None:
    """Do a session's work, show its report, and wait for MLflow."""
    with session:
        finished = work()
        if not as_json and not quiet:
            _print_report(finished)
        problem = _finish(session, quiet)
    if as_json:
        say_json(_document(finished, session, problem))
    for failure in finished.failed:
        complain(f"{failure} Type the same command to try again.")
    if finished.failed:
        raise typer.Exit(FAILED)


def _finish(session: Session, quiet: bool) -> str | None:
    """Wait for the mirror, and say what it could not do."""
    if session.mirror and session.mirror.pending and not quiet:
        complain(f"Sending {session.mirror.pending} trials to MLflow; Ctrl-C leaves them to the next command.")
    problem = session.finish()
    if problem and problem not in session.told:
        complain(f"note: {problem}")
    return problem


def _print_report(finished: Finished) -> None:
    from rich.console import Console

    from clipbench.reporting.formats import terminal

    console = Console()
    with console.capture() as shown:
        terminal.render(finished.report, console)
    search = "search.csv, " if finished.swept else ""
    files = f"report.md, report.html, report.json, table.csv, table.tex, {search}figures/"
    written = f"Written: {finished.folder}/ {files}; records/, epochs/, steps/ for pandas."
    say([shown.get(), written])


def _print_combined(combined: Combined) -> None:
    from rich.console import Console

    from clipbench.reporting.formats import terminal

    console = Console()
    with console.capture() as shown:
        terminal.render_combined(combined, console)
    say([shown.get(), "Each in full: clipbench report NAME"])


def _document(finished: Finished, session: Session, problem: str | None) -> dict[str, Any]:
    from clipbench.reporting.formats import json_report

    mirror = session.mirror
    return {
        "experiment": finished.subject.name,
        "folder": str(finished.folder),
        "device": finished.device,
        "trials": len(finished.subject.ids),
        "trained": finished.trained,
        "failed": list(finished.failed),
        "mlflow": {"pushed": mirror.pushed, "pending": mirror.pending, "problem": problem} if mirror else None,
        "notes": list(finished.notes),
        "report": json_report.as_dict(finished.report),
    }
