"""The commands push and pull: copy an experiment to MLflow, and back."""

from __future__ import annotations

from pathlib import Path

from clipbench import __version__, config
from clipbench.commands import mlflow_wait
from clipbench.commands.find_and_plan import find_experiment, name_of
from clipbench.commands.progress import Progress
from clipbench.commands.session import Settings, git_commit
from clipbench.errors import ClipbenchError
from clipbench.store.folder_check import check_links
from clipbench.tracking import download
from clipbench.tracking.invocation import Invocation
from clipbench.tracking.mirror import Mirror
from clipbench.tracking.mirror_state import MirrorState
from clipbench.tracking.uri import redact

PATIENCE = 60.0  # seconds without an answer


def push(experiment: str | Path, settings: Settings, progress: Progress) -> tuple[str, MirrorState]:
    """Send the trials and files that MLflow does not have; return the name of the experiment and what was sent."""
    folder = settings.results / name_of(experiment)
    if not folder.is_dir():
        find_experiment(experiment, settings.results)
        raise ClipbenchError(f"{folder}: nothing has been trained yet. Run `clipbench run {experiment}` first.")
    check_links(folder)
    yaml = folder / "experiment.yaml"
    options = config.flattened(yaml.read_text("utf-8")) if yaml.is_file() else {}
    invocation = Invocation(settings.command, git_commit=git_commit(), version=__version__, options=options)
    mirror = Mirror(folder, folder.name, settings.uri, settings.artifacts, invocation, beside_training=False)
    title = f"Sending {{}} to MLflow at {mirror.uri} (stops after {PATIENCE:.0f} s without an answer)"
    state = mlflow_wait.finish(mirror, progress, title, PATIENCE, expected=None)
    for note in state.notes:
        progress.note(note)
    if state.problem:
        sent = f"{state.pushed} of {state.pushed + state.pending} trials were sent. " * bool(state.pushed)
        raise ClipbenchError(f"{folder.name}: {sent}{state.problem}")
    return folder.name, state


def pull(experiment: str | Path, settings: Settings, progress: Progress) -> tuple[str, int]:
    """Rebuild a store from MLflow; return the name of the experiment and the number of new trials."""
    name, uri = name_of(experiment), settings.uri
    progress.phase(f"Downloading {name} from MLflow at {redact(uri)}")
    pulled = download.pull(uri, name, settings.results / name)
    progress.stop()
    for note in pulled.notes:
        progress.note(note)
    return name, pulled.trials
