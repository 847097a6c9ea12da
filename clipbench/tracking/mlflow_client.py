"""One experiment of an MLflow server or database. The only module that imports MLflow."""

from __future__ import annotations

import getpass
import logging
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clipbench.errors import ClipbenchError
from clipbench.store.atomic_files import wait_for_lock, writing
from clipbench.tracking import trial_to_run
from clipbench.tracking.uri import database_file, is_server, redact

QUIET = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Give up a server that hangs after seconds; MLflow's defaults wait for many minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
REFUSED = ("Connection refused", "NewConnectionError", "NameResolutionError", "Connection reset")
TIMED_OUT = ("Read timed out", "ReadTimeout", "ConnectTimeout", "ResponseError")
PRIMARY_METRIC = "mlflow.experiment.primaryMetric."
ENDED = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class MlflowRun:
    """A run in MLflow."""

    id: str
    status: str
    started: int  # ms since 1970
    tags: Mapping[str, str]

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class MlflowExperiment:
    """One experiment at a tracking URI."""

    def __init__(self, client: Any, experiment: Any) -> None:
        self._client, self._experiment = client, experiment

    @classmethod
    def at(cls, uri: str, name: str, artifacts_root: Path) -> MlflowExperiment:
        """Open the experiment of this name; create it if it does not exist."""
        with _only_process(uri):
            client = _client(uri)
            if experiment := client.get_experiment_by_name(name):
                if experiment.lifecycle_stage == "deleted":
                    client.restore_experiment(experiment.experiment_id)
                return cls(client, experiment)
            # A server has its own place for artifacts; a database does not.
            location = None if is_server(uri) else artifacts_root.absolute().as_uri()
            made = client.create_experiment(name, artifact_location=location)
            return cls(client, client.get_experiment(made))

    @classmethod
    def existing(cls, uri: str, name: str) -> MlflowExperiment:
        """Open the experiment of this name, or raise an error with similar names."""
        client = _client(uri)
        if experiment := client.get_experiment_by_name(name):
            return cls(client, experiment)
        names = [one.name for one in client.search_experiments(max_results=1000)]
        near = get_close_matches(name, names, n=3) or sorted(names)[:5]
        raise ClipbenchError(f"{redact(uri)}: unknown experiment {name!r}. Known: {', '.join(near)}.")

    def set_primary_metric(self, name: str, higher_is_better: bool) -> None:
        """Set the metric that MLflow's UI shows first."""
        for key, value in (("name", name), ("greaterIsBetter", str(higher_is_better))):
            if name and self._experiment.tags.get(PRIMARY_METRIC + key) != value:
                self._client.set_experiment_tag(self._experiment.experiment_id, PRIMARY_METRIC + key, value)

    def runs(self, tag: str) -> list[MlflowRun]:
        """Return the runs that have a tag, the oldest first."""
        found: list[MlflowRun] = []
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(
                [self._experiment.experiment_id],
                f"tags.`{tag}` LIKE '%'",
                max_results=1000,
                page_token=token or None,
            )
            found += [_run(run) for run in page]
            token = page.token or None
        return sorted(found, key=lambda run: run.started)

    def start(self, name: str, tags: Mapping[str, str], when: int | None = None) -> MlflowRun:
        tags = {"mlflow.source.name": "clipbench", "mlflow.user": _user(), **tags}
        made = self._client.create_run(self._experiment.experiment_id, start_time=when, tags=tags, run_name=name)
        return _run(made)

    def log(self, run: MlflowRun, params: Mapping[str, str], metrics: Iterable[trial_to_run.Entry], when: int) -> None:
        """Send params and metrics in one batch: one call per value takes fifty times as long."""
        from mlflow.entities import Metric, Param

        self._client.log_batch(
            run.id,
            metrics=[Metric(name, value, when, at) for name, value, at in metrics],
            params=[Param(name, value) for name, value in params.items()],
        )

    def log_dataset(self, run: MlflowRun, name: str, digest: str, source: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        made = Dataset(name, digest, source_type="code", source=source)
        used = DatasetInput(made, tags=[InputTag("mlflow.data.context", "train")])
        self._client.log_inputs(run.id, datasets=[used])

    def end(self, run: MlflowRun, status: str = "FINISHED", when: int | None = None) -> None:
        self._client.set_terminated(run.id, status, when)

    def tag(self, run: MlflowRun, key: str, value: str) -> None:
        self._client.set_tag(run.id, key, value)

    def delete(self, run: MlflowRun) -> None:
        """MLflow keeps deleted runs until `mlflow gc`."""
        self._client.delete_run(run.id)

    def files(self, run: MlflowRun) -> dict[str, int]:
        """Return the path and size of each artifact, one folder deep."""
        listed = self._client.list_artifacts(run.id)
        for folder in [item for item in listed if item.is_dir]:
            listed += self._client.list_artifacts(run.id, folder.path)
        return {item.path: item.file_size for item in listed if not item.is_dir}

    def upload(self, run: MlflowRun, folder: Path, path: str) -> None:
        """Upload a file. Artifact storages raise exceptions of many libraries, all of which become UploadError."""
        try:
            self._client.log_artifact(run.id, str(folder / path), path.rpartition("/")[0] or None)
        except Exception as error:
            raise UploadError(_reason(error)) from error

    def download(self, run: MlflowRun, path: str, folder: Path) -> None:
        """Download a file to the same path below `folder`."""
        with TemporaryDirectory() as temporary:
            found = self._client.download_artifacts(run.id, path, temporary)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, folder / path)


class UploadError(ClipbenchError):
    """A file could not be uploaded, although runs can be sent."""


@contextmanager
def connection(uri: str, remedy: str) -> Iterator[None]:
    """Suppress MLflow's output, and turn its errors into a message with `remedy`."""
    with _without_output():
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise ClipbenchError(f"MLflow at {redact(uri)}: {_reason(error)}. {remedy}") from error


@contextmanager
def _without_output() -> Iterator[None]:
    added = {name: value for name, value in QUIET.items() if name not in os.environ}
    os.environ.update(added)
    for name in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(name).setLevel("ERROR")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _only_process(uri: str) -> Iterator[None]:
    """Wait for other processes: two that create the tables of one SQLite file at the same time break it."""
    if (path := database_file(uri)) is None:
        yield
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()  # MLflow retries for minutes if the file cannot be opened
    with wait_for_lock(path.with_name(f".{path.name}.lock")):
        yield


def _client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _run(run: Any) -> MlflowRun:
    return MlflowRun(run.info.run_id, run.info.status, run.info.start_time, run.data.tags)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        return "unknown"


def _reason(error: Exception) -> str:
    text = redact(str(error))
    if any(sign in text for sign in TIMED_OUT):
        return "no response in time"
    if any(sign in text for sign in REFUSED):
        return "could not connect"
    return text.strip().partition("\n")[0][:300].rstrip(". ") or type(error).__name__
