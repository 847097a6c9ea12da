"""Convert pandas tables to arrays: text becomes classes or columns of 0 and 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# A column with more distinct text values is refused: it holds names or free text.
MOST_WORDS = 50
# Integers with more distinct values are quantities, not classes.
MOST_CLASSES = 100


def is_table(values: Any) -> bool:
    """Whether it is a DataFrame or a Series."""
    return type(values).__module__.partition(".")[0] == "pandas"


def problems(x: Any, y: Any, imputes: bool) -> Iterator[str]:
    """Yield everything for which a table of inputs and one of targets cannot be used, with what to write."""
    if is_table(x):
        yield from _input_problems(_frame(x), imputes)
    if is_table(y):
        yield from _target_problems(_frame(y))


def inputs_of(table: Any) -> np.ndarray:
    """Return numeric columns as they are and text one-hot encoded; missing values stay NaN."""
    frame = _frame(table)
    return np.column_stack([column for name in frame.columns for column in _columns(frame[name])])


def names_of(table: Any) -> tuple[str, ...]:
    """Return for each column of `inputs_of` the column of the table that it comes from."""
    frame = _frame(table)
    counts = {name: 1 if _is_numeric(frame[name]) else len(_words(frame[name])) for name in frame.columns}
    return tuple(str(name) for name, count in counts.items() for _ in range(count))


def drop(names: Sequence[str]) -> str:
    """Return how to leave columns out of a table."""
    return f"Write `drop: [{', '.join(names)}]`."


def _frame(table: Any) -> Any:
    return table.to_frame() if table.ndim == 1 else table


def _input_problems(frame: Any, imputes: bool) -> Iterator[str]:
    if not any(_is_numeric(frame[name]) or _words(frame[name]) for name in frame.columns):
        yield "the table has no input columns."
    for name in frame.columns:
        values = frame[name]
        if not _is_numeric(values) and len(words := _words(values)) > MOST_WORDS:
            example = f"such as {words[0]!r}"
            yield f"the column {str(name)!r} has {len(words):,} distinct text values, {example}. {drop([str(name)])}"
        elif _is_numeric(values):
            numbers = values.to_numpy(float, na_value=np.nan)
            if infinite := int(np.isinf(numbers).sum()):
                yield f"the column {str(name)!r} has {infinite:,} infinite values. Replace them, or leave it out."
            if not imputes and (missing := int(np.isnan(numbers).sum())):
                yield f"the column {str(name)!r} lacks {missing:,} of {len(frame):,} values. Write `impute: mean`."


def _target_problems(frame: Any) -> Iterator[str]:
    gone = int(frame.isna().any(axis=1).sum())
    if gone:
        yield f"{gone:,} of {len(frame):,} examples have no target. Remove these rows."
    for name in frame.columns:
        if _is_numeric(frame[name]):
            continue
        if frame.shape[1] > 1:
            yield f"the target {str(name)!r} contains text, but several targets must be numbers."
        elif (count := len(_words(frame[name]))) > MOST_CLASSES:
            yield f"the target {str(name)!r} has {count:,} distinct text values, more than {MOST_CLASSES}."


def _words(values: Any) -> list[str]:
    return sorted({str(word) for word in values.dropna()})


def _columns(values: Any) -> list[np.ndarray]:
    if _is_numeric(values):
        return [values.to_numpy(float, na_value=np.nan)]
    texts = values.astype(object).where(values.notna(), None)
    return [np.array([text is not None and str(text) == word for text in texts], float) for word in _words(values)]


def targets_of(table: Any) -> np.ndarray:
    """Return one column of text or of few integers as classes in sorted order, and all others as real numbers."""
    frame = _frame(table)
    if frame.shape[1] == 1 and (found := _classes(frame.iloc[:, 0])) is not None:
        return found
    return np.asarray(frame.to_numpy(float))


def _classes(values: Any) -> np.ndarray | None:
    if values.dtype.kind in "iu" and values.nunique() <= MOST_CLASSES:
        return np.unique(values.to_numpy(np.int64), return_inverse=True)[1].astype(np.int64)
    if _is_numeric(values) and values.dtype.kind != "b":
        return None
    return np.unique(values.astype(str).to_numpy(str), return_inverse=True)[1].astype(np.int64)


def _is_numeric(values: Any) -> bool:
    return bool(getattr(values.dtype, "_is_numeric", values.dtype.kind in "biuf"))
