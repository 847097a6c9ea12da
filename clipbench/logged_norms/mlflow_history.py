"""Metrics of a run in MLflow: every logged value."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from clipbench.errors import ClipbenchError, InputError, Place
from clipbench.logged_norms.logged_run import LoggedRun, Series
from clipbench.tracking.mlflow_client import find_run, metric_history
from clipbench.tracking.trial_to_run import POINTS, TRIAL
from clipbench.tracking.uri import database_file, redact

RUN = re.compile(r"(?:runs:/+)?([0-9a-f]{32})/?")
LARGEST = sys.float_info.max  # what MLflow stores of an infinity
REMEDY = "Check the id of the run, and `--tracking-uri`."
MEANS = (
    f"MLflow has at most {POINTS} means of a trial of clipbench. To use every step, name its results folder: "
    "`--from results/NAME`."
)


def run_id(source: str) -> str | None:
    """Return the id of the run that a text names: 32 hexadecimal digits, after `runs:/` or alone."""
    found = RUN.fullmatch(source)
    return found[1] if found else None


def read_mlflow_run(id: str, uri: str) -> LoggedRun:
    place = Place(f"run {id}")
    file = database_file(uri)
    if file and not file.exists():  # MLflow would create it
        remedy = "Name the database or server with `--tracking-uri`, or in MLFLOW_TRACKING_URI."
        raise InputError.at(place, f"there is no MLflow database {file}.", remedy)
    with _as_input_error(place):
        run = find_run(uri, id, REMEDY)

    def read(column: str) -> list[Series]:
        with _as_input_error(place):
            points = metric_history(uri, id, column, REMEDY)
        steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
        values[np.abs(values) >= LARGEST] = np.inf
        return [Series(values, steps)]

    name = f"run {run.info.run_name or id} of {redact(uri)}"
    return LoggedRun(name, tuple(run.data.metrics), read, notes=(MEANS,) if TRIAL in run.data.tags else ())


@contextmanager
def _as_input_error(place: Place) -> Iterator[None]:
    try:
        yield
    except ClipbenchError as error:
        raise InputError.at(place, str(error)) from error
