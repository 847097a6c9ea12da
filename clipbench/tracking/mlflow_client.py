"""One experiment in MLflow, through its client. The only module that imports MLflow."""

from __future__ import annotations

import getpass
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from functools import cache, cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from clipbench.errors import ClipbenchError, InputError, Place
from clipbench.store.atomic_files import wait_for_lock
from clipbench.tracking.mlflow_connection import connection, may_pass, reason
from clipbench.tracking.run_values import INPUT_TAGS, DataInput, MlflowRun, RunValues
from clipbench.tracking.uri import database_file, is_server, redact

PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds before a request is repeated
S = TypeVar("S")
T = TypeVar("T")
OnAnswer = Callable[[], None]
SYSTEM_METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
REQUESTS = 8  # to a server at a time


def nothing() -> None:
    """Who does not want to know when MLflow answers."""


class MlflowExperiment:
    """One experiment at a tracking URI, through MLflow's client."""

    def __init__(self, uri: str, id: str, on_answer: OnAnswer = nothing) -> None:
        self._uri, self.id, self._on_answer = uri, id, on_answer
        self._known_data: set[DataInput | None] = {None}

    @classmethod
    def at(cls, uri: str, name: str, artifacts_root: Path, on_answer: OnAnswer = nothing) -> MlflowExperiment:
        """Open the experiment of this name; create it if it does not exist."""
        with _only_process(uri):
            client = _Client(uri, on_answer)
            if experiment := client.get_experiment_by_name(name):
                if experiment.lifecycle_stage == "deleted":
                    client.restore_experiment(experiment.experiment_id)
                return cls(uri, experiment.experiment_id, on_answer)
            # A server has its own place for artifacts; a database does not.
            location = None if is_server(uri) else artifacts_root.absolute().as_uri()
            return cls(uri, client.create_experiment(name, artifact_location=location), on_answer)

    @classmethod
    def existing(cls, uri: str, name: str) -> MlflowExperiment:
        """Open the experiment of this name, or raise an error with similar names."""
        client = _Client(uri)
        if experiment := client.get_experiment_by_name(name):
            return cls(uri, experiment.experiment_id)
        names = [one.name for one in client.search_experiments(max_results=1000)]
        near = get_close_matches(name, names, n=3) or sorted(names)[:5]
        raise ClipbenchError(f"{redact(uri)}: unknown experiment {name!r}. Known: {', '.join(near)}.")

    @staticmethod
    def name_of(uri: str, run: str, on_answer: OnAnswer = nothing) -> str:
        """Return the name of the experiment of a run."""
        client = _Client(uri, on_answer)
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
        yield from self._at_once(self._send, together)

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
        storage = self._client.storage_of(run.id)
        listed = storage.list_artifacts()
        for folder in [item for item in listed if item.is_dir]:
            listed += storage.list_artifacts(folder.path)
        return {item.path: item.file_size for item in listed if not item.is_dir}

    def upload(self, run: MlflowRun, folder: Path, paths: Sequence[str]) -> Iterator[None]:
        """Upload files, and yield after each. Artifact storages raise exceptions of many libraries.

        All of them become UploadError.
        """
        try:
            yield from self._at_once(partial(self._upload, run, folder), paths)
        except Exception as error:
            raise UploadError(reason(error, self._uri)) from error

    def download(self, run: MlflowRun, path: str, folder: Path) -> None:
        """Download a file to the same path below `folder`."""
        with TemporaryDirectory() as temporary:
            found = self._client.storage_of(run.id).download_artifacts(path, temporary)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, folder / path)

    @cached_property
    def _client(self) -> Any:
        return _Client(self._uri, self._on_answer)

    @property
    def may_have_unknown_runs(self) -> bool:
        """Whether runs may have been created of which no answer told."""
        return "create_run" in self._client.repeated

    def _at_once(self, call: Callable[[S], T], items: Sequence[S]) -> Iterator[T]:
        """Yield the result of a call for each item; a server gets several at a time."""
        pool = ThreadPoolExecutor(REQUESTS if is_server(self._uri) else 1)
        try:
            yield from pool.map(call, items)
        finally:
            pool.shutdown(cancel_futures=True)

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
        return _Client(uri).get_run(id)


def metric_history(uri: str, id: str, metric: str, remedy: str) -> list[tuple[int, float]]:
    """Return the step and the value of every point of a metric, in the order of steps."""
    with connection(uri, remedy):
        points = _Client(uri).get_metric_history(id, metric)
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
def _only_process(uri: str) -> Iterator[None]:
    """Wait for other processes: only one of two may create an experiment of an SQLite file."""
    if path := database_file(uri):
        with wait_for_lock(path.with_name(f".{path.name}.lock")):
            yield
    else:
        yield


def make_tables(uri: str) -> None:
    """Let MLflow make its tables in an empty database."""
    _Client(uri).search_experiments(max_results=1)


class _Repeating:
    """An object of MLflow that says when it has an answer, and repeats a request which a server failed to answer."""

    def __init__(self, called: Any, uri: str, on_answer: OnAnswer) -> None:
        self._called, self._uri, self._on_answer = called, uri, on_answer
        self._pauses = PAUSES if is_server(uri) else ()
        self.repeated: set[str] = set()  # the methods of which a request was repeated

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._called, name)

        def call(*arguments: Any, **options: Any) -> Any:
            for pause in self._pauses:
                try:
                    answer = method(*arguments, **options)
                    break
                except Exception as error:
                    if not may_pass(error):
                        raise
                    self.repeated.add(name)
                    time.sleep(pause)
            else:
                answer = method(*arguments, **options)
            self._on_answer()
            return answer

        return call


class _Client(_Repeating):
    """MLflow's client."""

    def __init__(self, uri: str, on_answer: OnAnswer = nothing) -> None:
        from mlflow.tracking import MlflowClient

        super().__init__(MlflowClient(tracking_uri=uri), uri, on_answer)
        self._storages: dict[str, _Repeating] = {}

    def storage_of(self, run: str) -> Any:
        """Return where the artifacts of a run are. The client also asks for models, which MLflow 2 does not have."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if run not in self._storages:
            storage = get_artifact_repository(self.get_run(run).info.artifact_uri, tracking_uri=self._uri)
            self._storages[run] = _Repeating(storage, self._uri, self._on_answer)
        return self._storages[run]


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
