"""The commands push and pull: copy an experiment to MLflow, and back."""

from __future__ import annotations

from pathlib import Path

from clipbench import __version__, config
from clipbench.commands.session import Settings, find_experiment, git_commit
from clipbench.errors import ClipbenchError
from clipbench.tracking import sync
from clipbench.tracking.sync import Invocation, Pushed


def push(experiment: str | Path, settings: Settings) -> tuple[str, Pushed]:
    """Send the trials and files that MLflow does not have; return the name of the experiment and what was sent."""
    folder = settings.results / _name(experiment, settings.results)
    if not folder.is_dir():
        raise ClipbenchError(f"{folder}: nothing has been trained yet. Run `clipbench run {experiment}` first.")
    invocation = Invocation(command=settings.command, git_commit=git_commit(), version=__version__)
    return folder.name, sync.push(folder, folder.name, settings.uri, settings.artifacts, invocation)


def pull(experiment: str | Path, settings: Settings) -> tuple[str, int]:
    """Rebuild a store from MLflow; return the name of the experiment and the number of new trials."""
    name = _name(experiment, settings.results)
    return name, sync.pull(settings.uri, name, settings.results / name)


def _name(experiment: str | Path, results: Path) -> str:
    path = find_experiment(experiment, results)
    return config.name_of(path) if path.is_file() else path.name
