"""Convert pandas tables to arrays: text becomes classes or columns of 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from clipbench.plugins.registry import DataProblem

# A column with more distinct text values is refused: it holds names or free text.
MOST_WORDS = 50
# Integers with more distinct values are quantities, not classes.
MOST_CLASSES = 100


def is_table(values: Any) -> bool:
    """Whether it is a DataFrame or a Series."""
    return type(values).__module__.partition(".")[0] == "pandas"


def inputs_of(table: Any) -> np.ndarray:
    """Return numeric columns as they are and text one-hot encoded; missing values stay NaN."""
    frame = table.to_frame() if table.ndim == 1 else table
    columns = [column for name in frame.columns for column in _columns(str(name), frame[name])]
    if not columns:
        raise DataProblem("the table has no input columns.")
    return np.column_stack(columns)


def _columns(name: str, values: Any) -> list[np.ndarray]:
    if _is_numeric(values):
        return [values.to_numpy(float, na_value=np.nan)]
    words = sorted({str(word) for word in values.dropna()})
    if len(words) > MOST_WORDS:
        example = f"such as {words[0]!r}"
        raise DataProblem(f"the column {name!r} has {len(words):,} distinct text values, {example}. Remove it.")
    texts = values.astype(object).where(values.notna(), None)
    return [np.array([text is not None and str(text) == word for text in texts], float) for word in words]


def targets_of(table: Any) -> np.ndarray:
    """Return one column of text or of few integers as classes in sorted order, and all others as real numbers."""
    frame = table.to_frame() if table.ndim == 1 else table
    gone = int(frame.isna().any(axis=1).sum())
    if gone:
        raise DataProblem(f"{gone} of {len(frame)} examples have no target. Remove these rows.")
    if frame.shape[1] == 1 and (found := _classes(frame.iloc[:, 0])) is not None:
        return found
    for name in frame.columns:
        if not _is_numeric(frame[name]):
            raise DataProblem(f"the target {str(name)!r} contains text, but several targets must be numbers.")
    return np.asarray(frame.to_numpy(float))


def _classes(values: Any) -> np.ndarray | None:
    if values.dtype.kind in "iu" and values.nunique() <= MOST_CLASSES:
        return np.unique(values.to_numpy(np.int64), return_inverse=True)[1].astype(np.int64)
    if _is_numeric(values) and values.dtype.kind != "b":
        return None
    words = values.astype(str)
    if words.nunique() > MOST_CLASSES:
        raise DataProblem(
            f"the target {str(values.name)!r} has {words.nunique():,} distinct text values, more than {MOST_CLASSES}."
        )
    return np.unique(words.to_numpy(str), return_inverse=True)[1].astype(np.int64)


def _is_numeric(values: Any) -> bool:
    return bool(getattr(values.dtype, "_is_numeric", values.dtype.kind in "biuf"))
