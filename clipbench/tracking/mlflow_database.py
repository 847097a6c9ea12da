"""Runs written straight into the tables of MLflow's database, many in one transaction.

MLflow's client reads, checks and locks every value again, which takes more time than training a small model. The rows
here are those that it would write; a test compares all of them. A killed transaction leaves nothing.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from clipbench.tracking.mlflow_client import MlflowExperiment, OnAnswer, common_tags, nothing
from clipbench.tracking.run_values import INPUT_TAGS, MlflowRun, RunValues
from clipbench.tracking.uri import database_file

# The versions of MLflow's tables that are known (of MLflow 3.17). The client writes to all others.
SCHEMAS = frozenset({"dc11669786a5"})
DIALECTS = ("sqlite", "postgresql")
TABLES = {
    "alembic_version": ("version_num",),
    "experiments": ("experiment_id", "name", "workspace", "artifact_location", "lifecycle_stage"),
    "experiment_tags": ("experiment_id", "key", "value"),
    "runs": (
        "run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time",
        "end_time", "source_version", "lifecycle_stage", "artifact_uri", "experiment_id",
    ),
    "tags": ("run_uuid", "key", "value"),
    "params": ("run_uuid", "key", "value"),
    "metrics": ("run_uuid", "key", "value", "timestamp", "step", "is_nan"),
    "latest_metrics": ("run_uuid", "key", "value", "timestamp", "step", "is_nan"),
    "datasets": ("dataset_uuid", "experiment_id", "name", "digest", "dataset_source_type", "dataset_source"),
    "inputs": ("input_uuid", "source_type", "source_id", "destination_type", "destination_id"),
    "input_tags": ("input_uuid", "name", "value"),
}  # fmt: skip
T = {name: sa.table(name, *map(sa.column, columns)) for name, columns in TABLES.items()}
CACHE = "PRAGMA cache_size = -65536"  # KiB: the indexes of many metrics, where SQLite keeps 2 MB


class DatabaseExperiment(MlflowExperiment):
    """One experiment of a database whose tables are known. What is rare goes through the client."""

    def __init__(self, uri: str, engine: sa.Engine, id: int, location: str, on_answer: OnAnswer = nothing) -> None:
        super().__init__(uri, str(id), on_answer)
        self._engine, self._number, self._location = engine, id, location

    @classmethod
    def find(
        cls, uri: str, name: str, artifacts: Path | None = None, on_answer: OnAnswer = nothing
    ) -> DatabaseExperiment | None:
        """Open the experiment of this name, or return None if only the client can.

        Its artifacts are at the place that the database says, or in the folder `artifacts`.
        """
        file = database_file(uri)
        if urlsplit(uri).scheme.partition("+")[0] not in DIALECTS or (file and not file.exists()):
            return None
        engine = sa.create_engine(uri, connect_args={"timeout": 20} if file else {})
        table = T["experiments"].c
        wanted = sa.select(table.experiment_id, table.artifact_location).where(
            table.name == name, table.workspace == "default", table.lifecycle_stage == "active"
        )
        try:
            with engine.connect() as connection:
                versions = set(connection.scalars(sa.select(T["alembic_version"].c.version_num)))
                row = connection.execute(wanted).first() if versions and versions <= SCHEMAS else None
        except SQLAlchemyError:  # no tables yet
            row = None
        if row is None or "?" in row.artifact_location:
            engine.dispose()
            return None
        location = artifacts.absolute().as_uri() if artifacts else row.artifact_location
        return cls(uri, engine, row.experiment_id, location.rstrip("/"), on_answer)

    @property
    def may_have_unknown_runs(self) -> bool:
        return False

    def tag(self, tags: Mapping[str, str]) -> None:
        with self._engine.begin() as connection:
            _set(connection, "experiment_tags", "experiment_id", self._number, tags)

    def runs(self, tag: str) -> list[MlflowRun]:
        runs, tags, marked = T["runs"], T["tags"], T["tags"].alias()
        found = (
            sa.select(runs.c.run_uuid, runs.c.status, runs.c.start_time, tags.c.key, tags.c.value)
            .join(marked, sa.and_(marked.c.run_uuid == runs.c.run_uuid, marked.c.key == tag))
            .join(tags, tags.c.run_uuid == runs.c.run_uuid)
            .where(runs.c.experiment_id == self._number, runs.c.lifecycle_stage == "active")
            .order_by(runs.c.start_time, runs.c.run_uuid)
        )
        known: dict[str, MlflowRun] = {}
        said: dict[str, dict[str, str]] = {}
        with self._engine.connect() as connection:
            for run, status, started, name, value in connection.execute(found):
                said.setdefault(run, {})[name] = value
                known[run] = MlflowRun(run, status, started, said[run])
        return list(known.values())

    def send(self, runs: Sequence[RunValues]) -> Iterator[MlflowRun]:
        """Create runs in one transaction, and yield them when MLflow has them all."""
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        made = []
        for values in runs:
            # Ids that begin with the time: new rows come last in every index, which is faster and smaller.
            run = MlflowRun(
                f"{time.time_ns() // 1_000_000:012x}{uuid.uuid4().hex[12:]}", values.status, values.started, values.tags
            )
            rows["runs"].append(self._row(run, values))
            tags = {**common_tags(), **values.tags, "mlflow.runName": values.name}
            rows["tags"] += _pairs(run.id, tags)
            _collect(rows, run, values)
            made.append(run)
        with self._engine.begin() as connection:
            self._write(connection, rows)
            self._write_inputs(connection, made, runs)
        yield from made

    def add(self, run: MlflowRun, values: RunValues) -> None:
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        _collect(rows, run, values)
        with self._engine.begin() as connection:
            self._write(connection, rows)
            self._write_inputs(connection, [run], [values])
            _set(connection, "tags", "run_uuid", run.id, values.tags)
            if values.ended is not None:
                ends = {"status": values.status, "end_time": values.ended}
                connection.execute(sa.update(T["runs"]).where(T["runs"].c.run_uuid == run.id).values(ends))

    def files(self, run: MlflowRun) -> dict[str, int]:
        if (folder := self._folder(run)) is None:
            return super().files(run)
        found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in found}

    def _upload(self, run: MlflowRun, folder: Path, path: str) -> None:
        if (target := self._folder(run)) is None:
            return super()._upload(run, folder, path)
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target / path)

    def _folder(self, run: MlflowRun) -> Path | None:
        """Return the folder of a run's artifacts, if they are files of this machine."""
        parts = urlsplit(self._location)
        return Path(unquote(parts.path), run.id, "artifacts") if parts.scheme == "file" and not parts.netloc else None

    def _row(self, run: MlflowRun, values: RunValues) -> dict[str, Any]:
        empty = {"source_name": "", "entry_point_name": "", "source_version": ""}
        return {
            **empty,
            "run_uuid": run.id,
            "name": values.name,
            "source_type": "UNKNOWN",
            "user_id": common_tags()["mlflow.user"],
            "status": values.status,
            "start_time": values.started,
            "end_time": values.ended,
            "lifecycle_stage": "active",
            "artifact_uri": f"{self._location}/{run.id}/artifacts",
            "experiment_id": self._number,
        }

    def _write(self, connection: sa.Connection, rows: Mapping[str, list[dict[str, Any]]]) -> None:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(CACHE)
        for name, values in rows.items():
            if values:
                connection.execute(sa.insert(T[name]), values)

    def _write_inputs(self, connection: sa.Connection, made: Sequence[MlflowRun], runs: Sequence[RunValues]) -> None:
        """Write the data sets that the experiment lacks, and link runs to theirs."""
        inputs = []
        for data in {values.data for values in runs if values.data}:
            keys = {"experiment_id": self._number, "name": data.name, "digest": data.digest}
            columns = T["datasets"].c
            same = sa.and_(*(columns[name] == value for name, value in keys.items()))
            uuids = sa.select(columns.dataset_uuid).where(same)
            if (id := connection.scalar(uuids)) is None:
                id = uuid.uuid4().hex
                source = {"dataset_source_type": data.source_type, "dataset_source": data.source}
                connection.execute(sa.insert(T["datasets"]).values({"dataset_uuid": id, **keys, **source}))
            inputs += [
                {
                    "input_uuid": uuid.uuid4().hex,
                    "source_type": "DATASET",
                    "source_id": id,
                    "destination_type": "RUN",
                    "destination_id": run.id,
                }
                for run, values in zip(made, runs, strict=True)
                if values.data == data
            ]
        tags = [
            {"input_uuid": each["input_uuid"], "name": k, "value": v} for each in inputs for k, v in INPUT_TAGS.items()
        ]
        self._write(connection, {"inputs": inputs, "input_tags": tags})


def open_experiment(
    uri: str, name: str, artifacts_root: Path, *, is_own: bool = False, on_answer: OnAnswer = nothing
) -> MlflowExperiment:
    """Open the experiment of this name in the fastest way; create it if it does not exist.

    The database of a results folder `is_own`: its artifacts are beside it, also after the folder was moved.
    """
    place = artifacts_root if is_own else None
    if found := DatabaseExperiment.find(uri, name, place, on_answer):
        return found
    made = MlflowExperiment.at(uri, name, artifacts_root, on_answer)
    return DatabaseExperiment.find(uri, name, place, on_answer) or made


def _collect(rows: Mapping[str, list[dict[str, Any]]], run: MlflowRun, values: RunValues) -> None:
    """Add the rows of params and metrics."""
    rows["params"].extend(_pairs(run.id, values.params))
    points: list[dict[str, Any]] = [
        {"run_uuid": run.id, "key": name, "value": value, "timestamp": values.when, "step": at, "is_nan": False}
        for name, value, at in values.metrics
    ]
    rows["metrics"].extend(points)
    last: dict[Any, dict[str, Any]] = {}
    for point in sorted(points, key=lambda point: point["step"]):
        last[point["key"]] = point
    rows["latest_metrics"].extend(last.values())


def _pairs(run: str, values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"run_uuid": run, "key": name, "value": value} for name, value in values.items()]


def _set(connection: sa.Connection, table: str, owner: str, id: int | str, tags: Mapping[str, str]) -> None:
    """Write tags in place of those of the same names."""
    columns = T[table].c
    connection.execute(sa.delete(T[table]).where(columns[owner] == id, columns.key.in_(list(tags))))
    if tags:
        connection.execute(sa.insert(T[table]), [{owner: id, "key": k, "value": v} for k, v in tags.items()])
