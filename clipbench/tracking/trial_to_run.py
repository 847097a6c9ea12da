"""How a trial becomes a run in MLflow: its name, status, params, tags, metrics and data set, as plain values.

A diverged trial is a finished run: divergence is a result, which the tags `clipbench.status` and
`clipbench.diverged_cause` and the metrics `diverged` and `diverged_step` tell.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from clipbench.core.measures import EPOCH_PREFIX, STEP_PREFIX
from clipbench.store.column_types import is_option

TRIAL = "clipbench.trial"
STATUS = "clipbench.status"
POINTS = 50  # sent of a series by step: MLflow stores about ten values a millisecond; the Parquet files have all
NAME_LENGTH, PARAM_LENGTH, TAG_LENGTH, DIGEST_LENGTH = 250, 6000, 5000, 36  # MLflow's limits

Row = Mapping[str, Any]  # of the records
Series = Mapping[str, np.ndarray]
Entry = tuple[str, float, int]  # name, value, epoch or step


def run_name(row: Row) -> str:
    return f"{row.get('arm', row['id'])} seed {row.get('seed', '?')}"


def run_status(row: Row) -> str:
    return "FAILED" if row["status"] == "failed" else "FINISHED"


def params(row: Row) -> dict[str, str]:
    """Return every option as text."""
    return {key(name): str(row[name])[:PARAM_LENGTH] for name in row if is_option(name)}


def tags(row: Row) -> dict[str, str]:
    """Return the trial, its status, and other text values of the records (`diverged_cause`, `error`)."""
    words = {
        key(f"clipbench.{name}"): value[:TAG_LENGTH]
        for name, value in row.items()
        if isinstance(value, str) and name != "id" and not is_option(name)
    }
    return words | {TRIAL: row["id"]}


def metrics(row: Row, epochs: Series, steps: Series) -> list[Entry]:
    """Final values by the names that tables use, and the series, whose names begin with `epoch/` or `step/`."""
    entries = [*_series(epochs, "epoch", EPOCH_PREFIX), *_series(_thinned(steps), "step", STEP_PREFIX)]
    finals = {name: value for name, value in row.items() if not is_option(name) and not isinstance(value, str)}
    entries += [(name, float(value), 0) for name, value in finals.items()]
    return [(key(name), value, when) for name, value, when in entries if math.isfinite(value)]


def dataset(row: Row) -> tuple[str, str, str] | None:
    """Return the name, digest and source of the data set, or None for an objective without data."""
    if not row.get("data") or not row.get("fingerprint"):
        return None
    options = {name: str(value) for name, value in row.items() if name.startswith("data.")}
    made = json.dumps({"tags": {"mlflow.source.name": "clipbench", "data": row["data"], **options}})
    return row["data"][:NAME_LENGTH], row["fingerprint"][:DIGEST_LENGTH], made


def key(name: str) -> str:
    """Return a name that MLflow accepts: no brackets, no path with `..`."""
    clean = posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name)).lstrip("./")
    return clean[:NAME_LENGTH] or "_"


def _series(columns: Series, axis: str, prefix: str) -> Iterator[Entry]:
    whens = columns.get(axis, np.zeros(0)).tolist()
    for name, values in columns.items():
        if name not in ("id", axis) and not is_option(name):
            yield from ((prefix + name, value, when) for value, when in zip(_floats(values), whens, strict=True))


def _floats(values: np.ndarray) -> list[float]:
    numbers: list[float] = values.astype(np.float64).tolist()
    return numbers


def _thinned(steps: Series) -> Series:
    length = len(steps.get("step", ()))
    kept = np.unique(np.linspace(0, length - 1, min(length, POINTS)).round().astype(int))
    return {name: values[kept] for name, values in steps.items()}
