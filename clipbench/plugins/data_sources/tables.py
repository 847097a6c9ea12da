"""Tables in CSV and Parquet files."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Literal

from clipbench.plugins.decorators import dataset
from clipbench.plugins.registry import DataProblem, File

Task = Literal["auto", "classes", "numbers"]


@dataset()
def csv(
    path: File,
    target: str | Sequence[str] = (),
    features: Sequence[str] = (),
    drop: Sequence[str] = (),
    task: Task = "auto",
    separator: str = ",",
) -> Any:
    """A CSV file with a header: `target` is one or several columns (default: the last), all others are inputs.

    Targets of text, or of few different integers, are classes unless `task` says otherwise. Text inputs are one-hot
    encoded.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path, sep=separator)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise DataProblem(f"{path} is not a CSV file: {' '.join(str(error).split())}") from None
    return _split_columns(frame, target, features, drop, task)


@dataset()
def parquet(
    path: File,
    target: str | Sequence[str] = (),
    features: Sequence[str] = (),
    drop: Sequence[str] = (),
    task: Task = "auto",
) -> Any:
    """A Parquet file or a folder of them: `target` is one or several columns (default: the last), as for `csv`."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow raises subclasses of these
        raise DataProblem(f"{path} is not a Parquet file: {' '.join(str(error).split())}") from None
    return _split_columns(frame, target, features, drop, task)


def _split_columns(
    frame: Any, target: str | Sequence[str], features: Sequence[str], drop: Sequence[str], task: Task
) -> Any:
    """Return the inputs and targets of a table."""
    frame.columns = [str(name) for name in frame.columns]
    known = list(frame.columns)
    targets = [target] if isinstance(target, str) else list(target) or known[-1:]
    _check_names("target", targets, known)
    _check_names("features", features, known)
    _check_names("drop", drop, known)
    chosen = [name for name in features or known if name not in (*targets, *drop)]
    if not chosen or not len(frame):
        raise DataProblem("the table has no rows." if chosen else "there are no input columns left.")
    y = frame[targets]
    if task == "classes":
        y = y.astype(str)
    if task == "numbers":
        try:
            y = y.astype(float)
        except ValueError as error:
            raise DataProblem(f"the target has values that are not numbers: {error}.") from None
    return frame[chosen], y


def _check_names(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
            remedy = f"Did you mean {near[0]!r}?" if near else f"Columns: {listed}."
            raise DataProblem(f"{option}: there is no column {name!r}. {remedy}")
