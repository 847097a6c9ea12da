"""Rebuild a store from MLflow. Nothing that the server says is trusted: names, paths and files are checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from clipbench import config
from clipbench.errors import ClipbenchError
from clipbench.store import sweep_file
from clipbench.store.atomic_files import DamagedFileError
from clipbench.store.folder import Store
from clipbench.store.parquet_files import check_content
from clipbench.tracking.mlflow_client import MlflowExperiment
from clipbench.tracking.mlflow_connection import connection
from clipbench.tracking.run_values import MlflowRun
from clipbench.tracking.sender import FILE, FILES, INVOCATION, SEARCH
from clipbench.tracking.uri import redact

YAML = "experiment.yaml"
DOCUMENTS = (YAML, "runs.json", *SEARCH)  # the report is rendered again


@dataclass(frozen=True)
class Pulled:
    """What was downloaded: the number of new trials, and a line for each thing that could not be used."""

    trials: int
    notes: tuple[str, ...] = ()


def pull(uri: str, name: str, folder: Path) -> Pulled:
    """Rebuild a store from MLflow."""
    store = Store(folder)
    with connection(uri, "Start the server and run the same command again."), TemporaryDirectory() as temporary:
        experiment = MlflowExperiment.existing(uri, name)
        files = _newest_files(experiment)
        if not files:
            raise ClipbenchError(
                f"{redact(uri)}: experiment {name!r} has no Parquet files to rebuild a store from. "
                f"Run `clipbench push {name}` where it was trained."
            )
        fetched = Store(Path(temporary))
        for path, (run, size) in files.items():
            experiment.download(run, path, fetched.folder)
            if size is not None and (fetched.folder / path).stat().st_size != size:
                raise ClipbenchError(f"{path}: the download is incomplete. Run the same command again.")
        problems = [*_check_tables(fetched, files), *_check_documents(fetched, name)]
        with store.lock():
            before = set(store.current_rows())
            store.merge(fetched)
            for document in DOCUMENTS:
                if (fetched.folder / document).exists() and not (store.folder / document).exists():
                    store.write_text(document, (fetched.folder / document).read_text("utf-8"))
        left_out = (problem.removeprefix(f"{fetched.folder}/") for problem in problems)
        notes = tuple(f"left out of what MLflow has: {problem}." for problem in left_out)
    return Pulled(len(set(store.current_rows()) - before), notes)


def _newest_files(experiment: MlflowExperiment) -> dict[str, tuple[MlflowRun, int | None]]:
    """Return the files with known names, each of the newest run that has it: no server chooses where we write."""
    found: dict[str, tuple[MlflowRun, int | None]] = {}
    for run in experiment.runs(INVOCATION):
        for path, size in experiment.files(run).items() if FILES in run.tags else ():
            if FILE.fullmatch(path) or path in DOCUMENTS:
                found[path] = run, size
    return found


def _check_tables(fetched: Store, files: Iterable[str]) -> Iterator[str]:
    """Remove the files of each name of which one is damaged, and say which; return what the store finds in the rest."""
    for path in (fetched.folder / file for file in files if FILE.fullmatch(file)):
        try:
            if path.exists():
                check_content(path)
        except DamagedFileError:
            for each in fetched.folder.glob("*/*"):
                if each.stem == path.stem:
                    each.unlink()
            yield f"{path} is damaged"
    fetched.current_rows()
    yield from fetched.unusable.values()


def _check_documents(fetched: Store, name: str) -> Iterator[str]:
    """Remove the documents that cannot be read, or are of another experiment, and say why."""
    for document in DOCUMENTS:
        path = fetched.folder / document
        problem = ""
        try:
            if path.exists():
                path.read_text("utf-8")
                if document == YAML and (other := config.name_of(path)) != name:
                    problem = f"{path} is of an experiment called {other}"
                elif document == sweep_file.FILE:
                    sweep_file.read(path)
        except UnicodeDecodeError:
            problem = f"{path} is not text"
        except ClipbenchError as error:
            problem = str(error).partition("\n")[0].rstrip(".")
        if problem:
            path.unlink()
            yield problem
