"""Gradient norms of a log, checked and counted: what a pilot needs, and what a reader must know of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipbench.errors import InputError, Place
from clipbench.logged_norms.column_names import chosen_columns
from clipbench.logged_norms.logged_run import LoggedRun
from clipbench.logged_norms.open_log import open_log

# Norms after clipping: of the largest ones (this share of all, but at least so many), most equal the largest.
LARGEST_SHARE, LARGEST_COUNT = 0.01, 5
EQUAL = 1e-3


@dataclass(frozen=True)
class LoggedNorms:
    """The norms of one column; or, with several columns, the norms of the tensors of one model."""

    source: str
    columns: tuple[str, ...]
    trainings: tuple[np.ndarray, ...]  # the finite norms of each, [steps, columns]
    first: int | None  # numbers of the logged steps, where they are known
    last: int | None
    every: int  # the usual distance of two logged steps
    nonfinite: int  # steps that are left out
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.source}, {', '.join(self.columns)}"

    @property
    def steps(self) -> int:
        return sum(map(len, self.trainings))

    @property
    def whole(self) -> np.ndarray:
        """The norm of the whole gradient at all steps of all trainings."""
        return np.concatenate([np.linalg.norm(each, axis=1) for each in self.trainings])


def read_norms(
    source: str, wanted: Sequence[str], results: Path, tracking_uri: Callable[[], str], *, of_tensors: bool = False
) -> list[LoggedNorms]:
    """Return the norms of each run and column of a log; `of_tensors`: all columns of a run together."""
    place = Place(f"--from {source}")
    runs = open_log(source, results, tracking_uri)
    found = []
    for run, columns in zip(runs, _columns(runs, wanted, place), strict=True):
        for together in [columns] if of_tensors else [[column] for column in columns]:
            if together:
                found.append(_norms(run, together, place))
    return found


def _columns(runs: Sequence[LoggedRun], wanted: Sequence[str], place: Place) -> Iterator[list[str]]:
    """Yield the columns of each run; runs that have none of them are left out, unless all are."""
    problem: InputError | None = None
    chosen = []
    for run in runs:
        try:
            chosen.append([run.column] if run.column and not wanted else chosen_columns(run.columns, wanted, place))
        except InputError as error:
            problem = error
            chosen.append([])
    if problem and not any(chosen):
        raise problem
    yield from chosen


def _norms(run: LoggedRun, columns: Sequence[str], place: Place) -> LoggedNorms:
    named = Place(place.file, key=", ".join(columns))
    series = [run.read(column) for column in columns]
    if len({tuple(len(each.values) for each in trainings) for trainings in series}) > 1:
        text = "the columns were not logged at the same steps, so that they have no common norm."
        raise InputError.at(named, text, "Name columns that were logged together.")
    tables = [np.stack([each.values for each in training], axis=1) for training in zip(*series, strict=True)]
    finite = tuple(table[np.isfinite(table).all(1)] for table in tables)
    logged, steps = (sum(map(len, some)) for some in (tables, finite))
    if not steps:
        text = f"none of the {logged:,} norms is finite." if logged else "there are no numbers."
        raise InputError.at(named, text)
    if any((table < 0).any() for table in finite):
        raise InputError.at(named, "norms cannot be negative.", "Name another `--column`.")
    numbers = [each.steps for each in series[0] if each.steps is not None and each.steps.size]
    distances = np.concatenate([np.diff(each) for each in numbers] or [np.zeros(0)])
    return LoggedNorms(
        source=run.name,
        columns=tuple(columns),
        trainings=tuple(table for table in finite if len(table)),
        first=int(min(each[0] for each in numbers)) if numbers else None,
        last=int(max(each[-1] for each in numbers)) if numbers else None,
        every=max(round(float(np.median(distances))), 1) if distances.size else 1,
        nonfinite=logged - steps,
        notes=run.notes,
    )


def plateau(norms: np.ndarray) -> float | None:
    """Return the value that most of the largest norms have, as after clipping; None if they differ."""
    count = max(math.ceil(LARGEST_SHARE * len(norms)), LARGEST_COUNT)
    largest = np.sort(norms)[-count:]
    equal = largest[largest >= (1 - EQUAL) * largest[-1]]
    return float(np.median(equal)) if len(norms) >= count and len(equal) > count / 2 else None
