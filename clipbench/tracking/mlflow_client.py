"""One experiment in MLflow, through its client. The only module that imports MLflow."""

from __future__ import annotations

import getpass
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clipbench.errors import ClipbenchError, InputError, Place
from clipbench.store.atomic_files import wait_for_lock, writing
from clipbench.tracking.run_values import INPUT_TAGS, DataInput, MlflowRun, RunValues
from clipbench.tracking.uri import database_file, is_server, missing_driver, redact

QUIET = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Give up a server that hangs after seconds; MLflow's defaults wait for many minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
REFUSED = ("Connection refused", "NewConnectionError", "NameResolutionError", "Connection reset", "Connection aborted")
TIMED_OUT = ("Read timed out", "ReadTimeout", "ConnectTimeout", "ResponseError")
SYSTEM_METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
REQUESTS = 8  # to a server at a time


class MlflowExperiment:
    """One experiment at a tracking URI, through MLflow's client."""

    def __init__(self, uri: str, id: str) -> None:
        self._uri, self.id = uri, id
        self._known_data: set[DataInput | None] = {None}

    @classmethod
    def at(cls, uri: str, name: str, artifacts_root: Path) -> MlflowExperiment:
        """Open the experiment of this name; create it if it does not exist."""
        with _only_process(uri):
            client = _client(uri)
            if experiment := client.get_experiment_by_name(name):
                if experiment.lifecycle_stage == "deleted":
                    client.restore_experiment(experiment.experiment_id)
                return cls(uri, experiment.experiment_id)
            # A server has its own place for artifacts; a database does not.
            location = None if is_server(uri) else artifacts_root.absolute().as_uri()
            return cls(uri, client.create_experiment(name, artifact_location=location))

    @classmethod
    def existing(cls, uri: str, name: str) -> MlflowExperiment:
        """Open the experiment of this name, or raise an error with similar names."""
        client = _client(uri)
        if experiment := client.get_experiment_by_name(name):
            return cls(uri, experiment.experiment_id)
        names = [one.name for one in client.search_experiments(max_results=1000)]
        near = get_close_matches(name, names, n=3) or sorted(names)[:5]
        raise ClipbenchError(f"{redact(uri)}: unknown experiment {name!r}. Known: {', '.join(near)}.")

    @staticmethod
    def name_of(uri: str, run: str) -> str:
        """Return the name of the experiment of a run."""
        client = _client(uri)
        return str(client.get_experiment(client.get_run(run).info.experiment_id).name)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of the experiment."""
        for name, value in tags.items():
            self._client.set_experiment_tag(self.id, name, value)

    def runs(self, tag: str) -> list[MlflowRun]:
        """Return the runs that have a tag, the oldest first."""
        found: list[MlflowRun] = []
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(
                [self.id], f"tags.`{tag}` LIKE '%'", max_results=1000, page_token=token or None
            )
            found += [_run(run) for run in page]
            token = page.token or None
        return sorted(found, key=lambda run: run.started)

    def send(self, runs: Sequence[RunValues]) -> Iterator[MlflowRun]:
        """Create runs, and yield each when MLflow has all of it. The status comes last: an ended run is complete."""
        together = []
        for run in runs:
            # MLflow fails if two requests create the same data set at the same time.
            if is_server(self._uri) and run.data in self._known_data:
                together.append(run)
            else:
                yield self._send(run)
                self._known_data.add(run.data)
        pool = ThreadPoolExecutor(REQUESTS)
        try:
            yield from pool.map(self._send, together)
        finally:
            pool.shutdown(cancel_futures=True)

    def add(self, run: MlflowRun, values: RunValues) -> None:
        """Add tags, params and metrics to a run, and end it if the values say so."""
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run.id,
            metrics=[Metric(name, value, values.when, at) for name, value, at in values.metrics],
            params=[Param(name, value) for name, value in values.params.items()],
            tags=[RunTag(name, value) for name, value in values.tags.items()],
        )
        if values.data:
            self._client.log_inputs(run.id, datasets=[_dataset(values.data)])
        if values.ended is not None:
            self._client.set_terminated(run.id, values.status, values.ended)

    def delete(self, run: MlflowRun) -> None:
        """MLflow keeps deleted runs until `mlflow gc`."""
        self._client.delete_run(run.id)

    def monitor(self, run: MlflowRun) -> Any:
        """Log the use of CPU, memory, disk, network and GPU to a run until `finish` of the result is called."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        kind: Any = SystemMetricsMonitor  # without types
        monitor = kind(run.id, tracking_uri=self._uri)
        monitor.start()
        return monitor

    def files(self, run: MlflowRun) -> dict[str, int]:
        """Return the path and size of each artifact, one folder deep."""
        listed = self._client.list_artifacts(run.id)
        for folder in [item for item in listed if item.is_dir]:
            listed += self._client.list_artifacts(run.id, folder.path)
        return {item.path: item.file_size for item in listed if not item.is_dir}

    def upload(self, run: MlflowRun, folder: Path, path: str) -> None:
        """Upload a file. Artifact storages raise exceptions of many libraries, all of which become UploadError."""
        try:
            self._upload(run, folder, path)
        except Exception as error:
            raise UploadError(_reason(error)) from error

    def download(self, run: MlflowRun, path: str, folder: Path) -> None:
        """Download a file to the same path below `folder`."""
        with TemporaryDirectory() as temporary:
            found = self._client.download_artifacts(run.id, path, temporary)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, folder / path)

    @cached_property
    def _client(self) -> Any:
        return _client(self._uri)

    def _send(self, values: RunValues) -> MlflowRun:
        # The tags come first: if this process is killed, they say what the incomplete run is.
        tags = {**common_tags(), **values.tags}
        run = _run(self._client.create_run(self.id, start_time=values.started, tags=tags, run_name=values.name))
        self.add(run, replace(values, tags={}))
        return replace(run, status=values.status)

    def _upload(self, run: MlflowRun, folder: Path, path: str) -> None:
        self._client.log_artifact(run.id, str(folder / path), path.rpartition("/")[0] or None)


def find_run(uri: str, id: str, remedy: str) -> Any:
    """Return MLflow's object of a run, of any experiment, with its tags and the last value of each metric."""
    with connection(uri, remedy):
        return _client(uri).get_run(id)


def metric_history(uri: str, id: str, metric: str, remedy: str) -> list[tuple[int, float]]:
    """Return the step and the value of every point of a metric, in the order of steps."""
    with connection(uri, remedy):
        points = _client(uri).get_metric_history(id, metric)
    return [(each.step, each.value) for each in sorted(points, key=lambda each: (each.step, each.timestamp))]


class UploadError(ClipbenchError):
    """A file could not be uploaded, although runs can be sent."""


def logs_system_metrics() -> bool:
    """Whether MLflow's variable asks for them. Raise InputError if the library that measures is missing."""
    if os.environ.get(SYSTEM_METRICS, "").lower() not in ("true", "1"):
        return False
    if find_spec("psutil") is None:
        remedy = "Install it with `pip install 'clipbench[system-metrics]'`, or unset the variable."
        raise InputError.at(Place(SYSTEM_METRICS), "system metrics require psutil, which is not installed.", remedy)
    return True


@contextmanager
def connection(uri: str, remedy: str) -> Iterator[None]:
    """Suppress MLflow's output, and turn its errors into a message with `remedy`."""
    with _without_output():
        try:
            yield
        except ModuleNotFoundError as error:  # SQLAlchemy imports the driver that the URI names
            problem, way_out = missing_driver(error.name or "")
            raise ClipbenchError(f"MLflow at {redact(uri)}: {problem}. {way_out} {remedy}") from error
        except Exception as error:
            # Known by its module: importing MLflow's own exceptions takes seconds, and most runs do without.
            libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
            if not isinstance(error, OSError) and not libraries & {"mlflow", "sqlalchemy"}:
                raise
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


def common_tags() -> dict[str, str]:
    """Return the tags that every run gets."""
    return {"mlflow.source.name": "clipbench", "mlflow.user": _user()}


def _dataset(data: DataInput) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    made = Dataset(data.name, data.digest, source_type=data.source_type, source=data.source)
    return DatasetInput(made, tags=[InputTag(name, value) for name, value in INPUT_TAGS.items()])


def _run(run: Any) -> MlflowRun:
    return MlflowRun(run.info.run_id, run.info.status, run.info.start_time, run.data.tags)


@cache
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
