"""Advice about data that can be trained on, but probably not as they are: a sentence each, with what to write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from clipbench.datasets.dataset import Arrays, Dataset, is_labels
from clipbench.datasets.frames import drop

# The largest ratio of the standard deviations of two inputs, and the range of those of targets.
MOST_RATIO = 1000.0
TARGETS = (1e-2, 1e2)
# Rarely are inputs repeated by chance; of so many examples that are also in the training part, the test says little.
MOST_REPEATED = 0.05
MOST_OF_ONE_CLASS = 0.9
WIDE_MARGIN = 0.2  # of an accuracy: probably percentage points were meant
MOST_ROWS = 200_000  # that are compared, a second of time
STANDARDIZE = "Write `standardize: true`."


def advice(dataset: Dataset, standardized: bool, margin: float | None = None) -> Iterator[str]:
    """Yield what is probably wrong with the data of an experiment; nothing about data that are not in memory.

    `margin` is the smallest one of the report and of its claims about the accuracy.
    """
    if not dataset.in_memory:
        return
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    there = {name: part for name, part in parts.items() if part}
    if dataset.names:
        yield from _columns(dataset.names, np.concatenate([x for x, _ in there.values()]), _targets(there.values()))
    if not standardized:
        yield from _scales(dataset)
    for name in ("val", "test"):
        if name in there:
            yield from _repeated(name, there[name], dataset.train)
    yield from _one_class(dataset)
    if dataset.classes and margin:
        yield from _small(there, margin)


def _small(parts: Mapping[str, Arrays], margin: float) -> Iterator[str]:
    if margin >= WIDE_MARGIN:
        yield f"a margin of {margin:g} is ±{100 * margin:g} pp of accuracy. Write 0.005 for 0.5 pp."
    for name in ("val", "test"):
        examples = len(parts[name][0]) if name in parts else 0
        if examples and 1 / examples > margin:
            yield (
                f"the {name} part has {examples} examples, so its accuracy moves in steps of {100 / examples:.2g} pp, "
                f"more than the margin of ±{100 * margin:.2g} pp. Use a larger part or a wider margin."
            )


def _targets(parts: Iterable[Arrays]) -> np.ndarray:
    return np.concatenate([y for _, y in parts])


def _columns(names: Sequence[str], x: np.ndarray, y: np.ndarray) -> Iterator[str]:
    """Columns of a table that number the rows, or repeat the target."""
    columns = list(zip(names, x.T, strict=True))
    for name in dict.fromkeys(name for name, column in columns if _numbers_rows(column)):
        yield f"the column {name!r} numbers the rows. {drop([name])}"
    for name in dict.fromkeys(name for name, column in columns if _tells(column, y)):
        yield f"the column {name!r} tells the target. {drop([name])}"


def _numbers_rows(column: np.ndarray) -> bool:
    """Whether the values are equally spaced numbers, all different; scaling does not change that."""
    values = np.unique(column)
    if len(values) < max(len(column), 20):
        return False
    steps = np.diff(values)
    return bool(np.allclose(steps, steps[0], rtol=1e-3))


def _tells(column: np.ndarray, y: np.ndarray) -> bool:
    """Whether each value of the column belongs to one target and each target to one value."""
    if y.ndim > 1:
        return False
    values, targets = np.unique(column), np.unique(y)
    if len(values) != len(targets) or len(values) < 2:
        return False
    pairs = np.stack([np.searchsorted(values, column), np.searchsorted(targets, y)])
    return bool(np.unique(pairs, axis=1).shape[1] == len(values))


def _scales(dataset: Dataset) -> Iterator[str]:
    """Inputs or real targets of scales on which one learning rate cannot fit all weights."""
    x, y = dataset.train
    if x.ndim == 2 and x.dtype.kind == "f":
        scales = x.std(0)
        known = np.flatnonzero(scales > len(x) * np.finfo(x.dtype).eps * np.abs(x).max(0))  # rounding is no scale
        ordered = known[scales[known].argsort()]
        small, large = (ordered[len(ordered) // 4], ordered[-1]) if len(ordered) else (0, 0)  # images have dark corners
        if scales[large] > MOST_RATIO * scales[small] > 0:
            yield (
                f"the standard deviations of the inputs reach from {scales[small]:.2g} ({_input(dataset, small)}) to "
                f"{scales[large]:.2g} ({_input(dataset, large)}). {STANDARDIZE}"
            )
    if y.dtype.kind == "f" and not is_labels(y):
        scale = float(y.std())
        if scale and not TARGETS[0] <= scale <= TARGETS[1]:
            yield f"the standard deviation of the targets is {scale:.2g}. {STANDARDIZE}"


def _input(dataset: Dataset, number: int) -> str:
    return repr(dataset.names[number]) if dataset.names else f"number {number + 1}"


def _repeated(name: str, part: Arrays, train: Arrays) -> Iterator[str]:
    if len(train[0]) + len(part[0]) > MOST_ROWS:
        return
    known = {row.tobytes() for row in np.ascontiguousarray(train[0])}
    repeated = sum(row.tobytes() in known for row in np.ascontiguousarray(part[0])) / len(part[0])
    if repeated > MOST_REPEATED:
        yield (
            f"{100 * repeated:.0f} % of the {name} inputs are in the training part too, so {name} results say little "
            "about new data. Remove repeated rows."
        )


def _one_class(dataset: Dataset) -> Iterator[str]:
    y = (dataset.test or dataset.val or dataset.train)[1]
    if dataset.classes and y.ndim == 1:
        share = np.bincount(y).max() / len(y)
        if share > MOST_OF_ONE_CLASS:
            yield (
                f"{100 * share:.0f} % of the examples have the same class, so a constant answer has that accuracy. "
                "Compare another metric, such as f1."
            )
