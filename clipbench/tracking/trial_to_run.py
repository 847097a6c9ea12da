"""How a trial becomes a run in MLflow: its name, status, params, tags, metrics and data set, as plain values.

A diverged trial is a finished run: divergence is a result, which the tags `clipbench.status` and
`clipbench.diverged_cause` and the metrics `diverged` and `diverged_step` tell.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from clipbench.core.measures import EPOCH_PREFIX, STEP_PREFIX
from clipbench.store.column_types import is_option
from clipbench.tracking.run_values import (
    DIGEST_LENGTH,
    NAME_LENGTH,
    PARAM_LENGTH,
    TAG_LENGTH,
    DataInput,
    Point,
    RunValues,
    key,
)

TRIAL = "clipbench.trial"
STATUS = "clipbench.status"
POINTS = 25  # most of a series: each costs MLflow 300 bytes, and the Parquet files have all

Row = Mapping[str, Any]  # of the records
Series = Mapping[str, np.ndarray]


def run_values(row: Row, epochs: Series, steps: Series, ended: int) -> RunValues:
    """Return what MLflow gets of a trial that ended at a time."""
    return RunValues(
        name=f"{row.get('arm', row['id'])} seed {row.get('seed', '?')}",
        started=ended - round(1000 * row.get("seconds", 0)),
        ended=ended,
        status="FAILED" if row["status"] == "failed" else "FINISHED",
        tags=tags(row),
        params=params(row),
        metrics=metrics(row, epochs, steps),
        data=data_input(row),
    )


def params(row: Row) -> dict[str, str]:
    """Return every option as text."""
    return {key(name): str(row[name])[:PARAM_LENGTH] for name in row if is_option(name)}


def tags(row: Row) -> dict[str, str]:
    """Return the trial, its status, and other text values of the records (`diverged_cause`, `error`)."""
    words = {
        key(f"clipbench.{name}"): value[:TAG_LENGTH]
        for name, value in row.items()
        if isinstance(value, str) and value and name != "id" and not is_option(name)
    }
    return words | {TRIAL: row["id"]}


def metrics(row: Row, epochs: Series, steps: Series) -> tuple[Point, ...]:
    """Final values by the names that tables use, and the series, whose names begin with `epoch/` or `step/`."""
    finals = {name: value for name, value in row.items() if not is_option(name) and not isinstance(value, str)}
    found = {
        (key(name), when): value
        for name, value, when in (
            *_series(epochs, "epoch", EPOCH_PREFIX),
            *_series(steps, "step", STEP_PREFIX),
            *((name, float(value), 0) for name, value in finals.items() if math.isfinite(value)),
        )
    }
    return tuple((name, value, when) for (name, when), value in found.items())


def data_input(row: Row) -> DataInput | None:
    """Return the data set, or None for an objective without data."""
    if not row.get("data") or not row.get("fingerprint"):
        return None
    options = {name: str(value) for name, value in row.items() if name.startswith("data.")}
    source: dict[str, Any] = {"tags": {"mlflow.source.name": "clipbench", "data": row["data"], **options}}
    kind, name = "code", options.get("data.dataset") or row["data"]  # of a library by name, or generated
    if path := options.get("data.path"):
        kind, name, source = "local", PurePath(path).name, {"uri": path}
    return DataInput(name[:NAME_LENGTH], row["fingerprint"][:DIGEST_LENGTH], kind, json.dumps(source))


def _series(columns: Series, axis: str, prefix: str) -> Iterator[Point]:
    """At most POINTS means over equal windows, each at the end of its window, and none between two equal ones."""
    whens = columns.get(axis, np.zeros(0))
    ends = np.linspace(0, len(whens), min(len(whens), POINTS) + 1).round().astype(int)
    for column, every in columns.items():
        if column in ("id", axis) or is_option(column) or not len(whens):
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            values = np.add.reduceat(every.astype(np.float64), ends[:-1]) / np.diff(ends)
        finite = np.isfinite(values)
        values, places = values[finite], whens[ends[1:] - 1][finite]
        turns = np.ones(len(values), bool)
        turns[1:-1] = (values[1:-1] != values[:-2]) | (values[1:-1] != values[2:])
        name = prefix + column
        yield from zip([name] * len(values), values[turns].tolist(), places[turns].tolist(), strict=False)
