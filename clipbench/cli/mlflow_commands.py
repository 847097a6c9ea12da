"""The commands around MLflow: push, pull and ui."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipbench.cli.app import TRACKING, app, say
from clipbench.cli.shared_options import Results, TrackingUri

Name = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Experiment file, or name of an experiment.")]


@app.command(rich_help_panel=TRACKING)
def push(experiment: Name, results: Results = Path("results"), tracking_uri: TrackingUri = None) -> None:
    """Upload results that are missing in MLflow."""
    from clipbench.commands.progress import make_progress
    from clipbench.commands.push_pull import push
    from clipbench.commands.session import Settings

    settings = Settings(results=results, tracking_uri=tracking_uri, command="clipbench push")
    with make_progress(quiet=False) as progress:
        name, sent = push(experiment, settings, progress)
    say([f"{name}: {sent.pushed} trials and {sent.files} files sent to MLflow."])


@app.command(rich_help_panel=TRACKING)
def pull(experiment: Name, results: Results = Path("results"), tracking_uri: TrackingUri = None) -> None:
    """Rebuild a results folder from MLflow."""
    from clipbench.commands.progress import make_progress
    from clipbench.commands.push_pull import pull
    from clipbench.commands.session import Settings

    with make_progress(quiet=False) as progress:
        name, trials = pull(experiment, Settings(results=results, tracking_uri=tracking_uri), progress)
    say([f"{name}: {trials} trials downloaded from MLflow. Next: clipbench report {name}"])


@app.command(rich_help_panel=TRACKING, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def ui(
    context: typer.Context,
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="Experiment file, or name; the one that ran last if left out.")
    ] = "",
    results: Results = Path("results"),
    tracking_uri: TrackingUri = None,
    host: Annotated[str, typer.Option("--host", help="Address that MLflow listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="Port that MLflow listens on.")] = 5000,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
) -> None:
    """Open the MLflow UI at the runs of an experiment.

    Other options, such as --workers 1, are passed on to `mlflow ui`.
    """
    from clipbench.commands.session import Settings
    from clipbench.commands.ui import ui

    given = [experiment, *context.args] if experiment.startswith("-") else context.args
    name = "" if experiment.startswith("-") else experiment
    ui(name, Settings(results=results, tracking_uri=tracking_uri), host, port, given, say=say, browser=not no_browser)
