"""One training as its log has it: the columns of numbers, and how each is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipbench.errors import InputError, Place
from clipbench.logged_norms.column_names import is_step

MISSING = ("", "null", "None", "NA")


@dataclass(frozen=True)
class Series:
    """The values of a column in the order of training, without missing ones; the numbers of their steps, if known."""

    values: np.ndarray
    steps: np.ndarray | None = None


@dataclass(frozen=True)
class LoggedRun:
    """The log of one training; or of several with the same options, each of which has a series of a column."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[str], Sequence[Series]]
    column: str = ""  # the one that is meant if none is asked for; empty: by its name
    notes: tuple[str, ...] = ()


def run_of_table(name: str, table: Mapping[str, Sequence[Any]]) -> LoggedRun:
    """Return the run of a table, whose cells are numbers, text or None, with a row for each logged step."""
    columns = tuple(column for column, cells in table.items() if _is_number(next(filter(_is_given, cells), None)))
    axis = next(filter(is_step, columns), None)

    def read(column: str) -> list[Series]:
        rows = [row for row, cell in enumerate(table[column]) if _is_given(cell)]
        values = _numbers(name, column, [table[column][row] for row in rows])
        steps = [table[axis][row] for row in rows] if axis else [None]
        known = all(map(_is_given, steps))
        return split_at_restarts(Series(values, _numbers(name, str(axis), steps) if known else None))

    return LoggedRun(name, tuple(column for column in columns if column != axis), read)


def table_of_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the columns of rows that may have different keys."""
    known = list(rows)
    names = dict.fromkeys(name for row in known for name in row)
    return {name: [row.get(name) for row in known] for name in names}


def split_at_restarts(series: Series) -> list[Series]:
    """Return a series for each training: where the number of the step falls, another one begins."""
    if series.steps is None:
        return [series]
    starts = np.flatnonzero(np.diff(series.steps) < 0) + 1
    parts = zip(np.split(series.values, starts), np.split(series.steps, starts), strict=True)
    return [Series(*part) for part in parts]


def _numbers(name: str, column: str, cells: Sequence[Any]) -> np.ndarray:
    try:
        return np.array(cells, dtype=np.float64)
    except (TypeError, ValueError):
        wrong = next(cell for cell in cells if not _is_number(cell))
    text = f"expected numbers, got {str(wrong)[:40]!r}."
    raise InputError.at(Place(name, key=column), text, "Name another `--column`.")


def _is_given(cell: Any) -> bool:
    return cell is not None and not (isinstance(cell, str) and cell.strip() in MISSING)


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return not isinstance(cell, bool)
