"""Dataset: training, validation and test data, and the shapes that a model needs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clipbench.datasets.frames import inputs_of, is_table, targets_of
from clipbench.plugins.registry import DataProblem

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Dataset:
    """The three parts of a data set; val and test may be missing."""

    train: Arrays
    val: Arrays | None
    test: Arrays | None
    fingerprint: str
    names: tuple[str, ...] = field(default=(), kw_only=True)  # of the columns of a table, one for each input

    @property
    def examples(self) -> dict[str, int]:
        """The number of examples of each part."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: len(part[0]) for name, part in parts.items() if part}

    @property
    def classes(self) -> bool:
        """Whether the targets are classes: integers."""
        return bool(np.issubdtype(self.train[1].dtype, np.integer))

    @property
    def inputs(self) -> int | tuple[int, ...]:
        """The number of features of an example, or its shape if it has more axes."""
        shape = self.train[0].shape[1:]
        return int(np.prod(shape)) if len(shape) < 2 else tuple(int(size) for size in shape)

    @property
    def tokens(self) -> int:
        """The number of distinct tokens of integer inputs; 0 for real inputs."""
        return self._largest(0) + 1 if np.issubdtype(self.train[0].dtype, np.integer) else 0

    @property
    def every_step(self) -> bool:
        """Whether every step of a sequence has a class."""
        return self.classes and self.train[1].ndim == 2 and self.train[0].shape[1:2] == self.train[1].shape[1:]

    def _largest(self, which: int) -> int:
        return max(int(part[which].max()) for part in (self.train, self.val, self.test) if part)

    @property
    def outputs(self) -> int:
        """The number of classes, or of targets."""
        if self.classes:
            return self._largest(1) + 1
        return 1 if self.train[1].ndim == 1 else int(self.train[1].shape[1])


def pair_of(given: Any) -> Arrays:
    try:
        x, y = given
    except (TypeError, ValueError):
        raise DataProblem(f"expected (x, y) or a mapping of train, val and test, got {type(given).__name__}.") from None
    return inputs_of(x) if is_table(x) else _array(x), targets_of(y) if is_table(y) else _array(y)


def _array(values: Any) -> np.ndarray:
    """Convert to an array. 64-bit floats stay so; training rounds them if it runs in 32 bits."""
    try:
        array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except ValueError as error:
        raise DataProblem(f"arrays must contain numbers: {error}") from None
    if array.ndim == 0:
        raise DataProblem(f"arrays need one row per example, got {array!r}.")
    if array.dtype == bool:
        return array.astype(np.int64 if array.ndim == 1 else float)  # several labels are targets of 0 or 1 each
    if array.dtype.kind not in "iuf":
        raise DataProblem(f"arrays must contain numbers, got {array.dtype}.")
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def is_labels(y: np.ndarray) -> bool:
    """Whether all real targets are 0 or 1: labels, for a loss such as `bce`."""
    return y.dtype.kind == "f" and bool(np.isin(y, (0.0, 1.0)).all())


def check(name: str, x: np.ndarray, y: np.ndarray) -> None:
    if len(x) != len(y) or not len(x):
        raise DataProblem(
            f"the {name} part needs as many inputs as targets, and at least one, got {len(x)} and {len(y)}."
        )
    for what, array in (("inputs", x), ("targets", y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            remedy = "Fill or remove them first" + (", or write impute: mean." if what == "inputs" else ".")
            raise DataProblem(f"the {what} of the {name} part contain NaN or infinite values. {remedy}")
    if np.issubdtype(y.dtype, np.integer) and y.min() < 0:
        raise DataProblem(f"classes must be at least 0, got {int(y.min())} in the {name} part.")


def fingerprint_of(parts: Mapping[str, Arrays]) -> str:
    content = hashlib.sha256()
    for name in sorted(parts):
        for array in parts[name]:
            content.update(f"{name}{array.dtype.str}{array.shape}".encode())
            content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()[:16]
