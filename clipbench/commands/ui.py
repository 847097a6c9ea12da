"""The command ui: MLflow's pages, opened at the runs of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from clipbench.commands.find_and_plan import name_of
from clipbench.commands.session import Settings
from clipbench.tracking import mlflow_pages
from clipbench.tracking.uri import is_server


def ui(
    experiment: str,
    settings: Settings,
    host: str,
    port: int,
    options: Sequence[str],
    *,
    say: Callable[[Iterable[str]], None],
    browser: bool,
) -> None:
    """Say where the runs of an experiment are and open that page; a database gets a server until Ctrl-C."""
    uri, results = settings.uri, settings.results
    address = mlflow_pages.address_of(uri, host, port)
    if name := name_of(experiment) if experiment else _last_experiment(results):
        address += mlflow_pages.page(uri, name, results / name)
    if not is_server(uri):
        mlflow_pages.check_port(host, port)
    say([f"{name or 'MLflow'}: {address}"])
    if browser:
        mlflow_pages.open_later(address)
    if not is_server(uri):
        command, environment = mlflow_pages.server_command(uri, settings.artifacts, host, port)
        mlflow_pages.serve([*command, *options], environment)


def _last_experiment(results: Path) -> str:
    """The name of the experiment that ran last; empty if none did."""
    ran = sorted(results.glob("*/runs.json"), key=lambda path: path.stat().st_mtime)
    return ran[-1].parent.name if ran else ""
