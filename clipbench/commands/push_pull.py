"""The commands push and pull: copy an experiment to MLflow, and back."""

from __future__ import annotations

from pathlib import Path

from clipbench import __version__, config
from clipbench.commands.find_and_plan import find_experiment, name_of
from clipbench.commands.session import Settings, git_commit
from clipbench.errors import ClipbenchError
from clipbench.tracking import sync
from clipbench.tracking.invocation import Invocation
from clipbench.tracking.sync import Pushed


def push(experiment: str | Path, settings: Settings) -> tuple[str, Pushed]:
    """Send the trials and files that MLflow does not have; return the name of the experiment and what was sent."""
    folder = settings.results / name_of(experiment)
    if not folder.is_dir():
        find_experiment(experiment, settings.results)
        raise ClipbenchError(f"{folder}: nothing has been trained yet. Run `clipbench run {experiment}` first.")
    yaml = folder / "experiment.yaml"
    options = config.flattened(yaml.read_text("utf-8")) if yaml.is_file() else {}
    invocation = Invocation(settings.command, git_commit=git_commit(), version=__version__, options=options)
    return folder.name, sync.push(folder, folder.name, settings.uri, settings.artifacts, invocation)


def pull(experiment: str | Path, settings: Settings) -> tuple[str, int]:
    """Rebuild a store from MLflow; return the name of the experiment and the number of new trials."""
    name = name_of(experiment)
    return name, sync.pull(settings.uri, name, settings.results / name)
