"""Dataset: training, validation and test data, and the shapes that a model needs."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from clipbench.datasets.augmentation import Augmentation
from clipbench.datasets.frames import inputs_of, is_table, targets_of
from clipbench.datasets.items import Batch
from clipbench.errors import Unsupported
from clipbench.plugins.registry import DataProblem

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Dataset:
    """The three parts of a data set; val and test may be missing.

    Where the training examples are not in memory, `train` has some of them, which show shapes and classes.
    """

    in_memory: ClassVar[bool] = True  # whether all training examples are in `train`

    train: Arrays
    val: Arrays | None
    test: Arrays | None
    fingerprint: str
    names: tuple[str, ...] = field(default=(), kw_only=True)  # of the columns of a table, one for each input
    augment: Augmentation | None = field(default=None, kw_only=True)  # changes the batches that are trained on
    fewest_outputs: int = field(default=0, kw_only=True)  # classes that are known to be there

    @property
    def size(self) -> int | None:
        """The number of training examples; None if it is not known."""
        return len(self.train[0])

    @property
    def has_fixed_examples(self) -> bool:
        """Whether a step learns from examples of a fixed set, of which each is in one gradient."""
        return self.size is not None and not (self.augment is not None and self.augment.mixes)

    @property
    def by_batch(self) -> bool:
        """Whether the engine is given the examples of each batch: their numbers do not say enough."""
        return not self.in_memory or self.augment is not None

    @property
    def examples(self) -> dict[str, int]:
        """The number of examples of each part."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        found = {name: len(part[0]) for name, part in parts.items() if part}
        return found if self.size is None else found | {"train": self.size}

    def first_batch(self, dtype: torch.dtype, size: int, start: int = 0) -> Batch:
        """Return a batch of that size as a model is trained on it, from the example `start` on, again and again."""
        rows = np.arange(start, start + size) % len(self.train[0])
        x, y = (in_type(torch.as_tensor(part[rows]), dtype) for part in self.train)
        return self.augment.try_on(x, y) if self.augment else (x, y)

    def check_batch(self, x: Tensor, y: Tensor, size: int) -> None:
        """Raise an error if a batch has other shapes than expected, or classes or tokens that no example had."""
        for name, got, example in (("inputs", x, self.train[0]), ("targets", y, self.train[1])):
            if got.shape != (size, *example.shape[1:]):
                text = f"all batches must have the same shape: expected {name} {(size, *example.shape[1:])}"
                raise DataProblem(f"{text}, got {tuple(got.shape)}.")
        for name, values, known in (("class", y, self._classes), ("token", x, self._tokens)):
            if known and int(values.max()) >= known:
                text = f"{name} {int(values.max())} was drawn, but the first examples, validation and test have only"
                remedy = "Draw so many that all of them occur: `split: {test: 100000}`."
                raise Unsupported(f"{text} 0 to {known - 1}.", remedy, "data")

    @cached_property
    def _classes(self) -> int:
        return self.outputs if self.classes else 0

    @cached_property
    def _tokens(self) -> int:
        return self.tokens

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
            return max(self._largest(1) + 1, self.fewest_outputs)
        return 1 if self.train[1].ndim == 1 else int(self.train[1].shape[1])


@dataclass(frozen=True, eq=False)
class EndlessDataset(Dataset):
    """Examples without an end, or with one that is not known before it is reached."""

    in_memory = False

    @property
    def size(self) -> int | None:
        """The number of training examples, which is not known."""
        return None

    @property
    def pass_examples(self) -> int | None:
        """The number of examples of a pass over the data; None if there are no passes, or it is not known."""
        return None

    @abstractmethod
    def batch_size(self, asked: int | None) -> int:
        """Return the batch size for the one that is asked for; None asks for all examples at once."""


def in_type(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return real numbers in the type of training."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


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
