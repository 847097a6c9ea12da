"""A data component as tensors: loaded, split by its own seed, standardized by its training part, fingerprinted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from clipbench import registry
from clipbench.trial import Component

Arrays = tuple[np.ndarray, np.ndarray]

# Options that every data set takes beside its own.
COMMON = ("split.val", "split.test", "split.seed", "standardize", "limit")


class DataProblem(ValueError):
    """The data cannot be used; the text says why."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """The three parts of a data set; val and test may be missing."""

    train: Arrays
    val: Arrays | None
    test: Arrays | None
    fingerprint: str

    @property
    def classes(self) -> bool:
        """Whether the targets are classes: whole numbers."""
        return bool(np.issubdtype(self.train[1].dtype, np.integer))

    @property
    def inputs(self) -> int | tuple[int, ...]:
        """What a model is told of an example: the number of features, or the shape if it has more axes."""
        shape = self.train[0].shape[1:]
        return int(np.prod(shape)) if len(shape) < 2 else tuple(int(size) for size in shape)

    @property
    def outputs(self) -> int:
        """The number of classes, or of targets."""
        if self.classes:
            return max(int(part[1].max()) for part in (self.train, self.val, self.test) if part) + 1
        return 1 if self.train[1].ndim == 1 else int(self.train[1].shape[1])


def load(component: Component) -> Dataset:
    """The data set that a component names; kept, since every chunk of a cohort asks for it again."""
    return _load(component, component.folder)  # a user's function may read files beside it


@lru_cache(maxsize=4)
def _load(component: Component, folder: str) -> Dataset:
    options = component.as_dict()
    plugin = registry.of("data", component)
    own = {name: value for name, value in options.items() if name not in COMMON}
    given = plugin.function(**own)
    parts = _parts(given, options)
    limit = options.get("limit")
    if isinstance(limit, int):
        parts["train"] = (parts["train"][0][:limit], parts["train"][1][:limit])
    for name, (x, y) in parts.items():
        _check(name, x, y)
    if options.get("standardize"):
        parts = _standardized(parts)
    return Dataset(parts["train"], parts.get("val"), parts.get("test"), _fingerprint(parts))


def _parts(given: Any, options: Mapping[str, Any]) -> dict[str, Arrays]:
    if isinstance(given, Mapping):
        unknown = set(given) - {"train", "val", "test"}
        if unknown or "train" not in given:
            raise DataProblem(f"the mapping needs `train`, and may have `val` and `test`; it has {sorted(given)}.")
        return {name: _pair(part) for name, part in given.items() if part is not None}
    x, y = _pair(given)
    return _split(
        x,
        y,
        float(options.get("split.val", 0.2)),
        float(options.get("split.test", 0.2)),
        options.get("split.seed", 0),
    )


def _pair(given: Any) -> Arrays:
    try:
        x, y = given
    except (TypeError, ValueError):
        raise DataProblem(
            f"it must return (x, y) or a mapping of train, val and test, got {type(given).__name__}."
        ) from None
    return _array(x), _array(y)


def _array(values: Any) -> np.ndarray:
    """Arrays as they were given: 64-bit numbers are rounded only when training asks for 32 bits."""
    try:
        array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except ValueError as error:
        raise DataProblem(f"arrays must hold numbers: {error}") from None
    if array.ndim == 0:
        raise DataProblem(f"arrays need one row an example, got {array!r}.")
    if array.dtype == bool:
        return array.astype(np.int64)
    if array.dtype.kind not in "iuf":
        raise DataProblem(f"arrays must hold numbers, got {array.dtype}.")
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


def _split(x: np.ndarray, y: np.ndarray, val: float, test: float, seed: int) -> dict[str, Arrays]:
    """A fixed partition, the same for every trial; classes keep their shares in each part."""
    from sklearn.model_selection import train_test_split

    if len(x) != len(y):
        raise DataProblem(f"x has {len(x)} examples and y has {len(y)}.")
    kept = np.arange(len(x))
    parts = {}
    for name, share in (("test", test), ("val", val)):
        size = round(share * len(x))
        if share:
            if not 0 < size < len(kept):
                raise DataProblem(f"{len(x)} examples are too few for a {name} part of {share:g}.")
            kept, part = train_test_split(kept, test_size=size, random_state=seed, stratify=_strata(y[kept], size))
            parts[name] = (x[part], y[part])
    return {"train": (x[kept], y[kept]), **parts}


def _strata(y: np.ndarray, size: int) -> np.ndarray | None:
    """The classes to keep the shares of, where each of them has enough examples."""
    if not np.issubdtype(y.dtype, np.integer) or y.ndim > 1:
        return None
    counts = np.unique(y, return_counts=True)[1]
    enough = counts.min() >= 2 and len(counts) <= min(size, len(y) - size)
    return y if enough else None


def _standardized(parts: dict[str, Arrays]) -> dict[str, Arrays]:
    """Mean 0 and standard deviation 1 by the training part; real targets too, so that learning rates carry over."""
    x, y = parts["train"]
    scale_x = _scaling(x)
    scale_y = _scaling(y) if np.issubdtype(y.dtype, np.floating) else lambda classes: classes
    return {name: (scale_x(x), scale_y(y)) for name, (x, y) in parts.items()}


def _scaling(array: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mean, std = array.mean(0), array.std(0)
    # What rounding makes of a column that does not vary, such as 0.1, 0.1, 0.1.
    rounding = len(array) * np.finfo(std.dtype).eps * np.abs(mean)
    std = np.where(std > rounding, std, 1.0)
    return lambda values: (values - mean) / std


def _check(name: str, x: np.ndarray, y: np.ndarray) -> None:
    if len(x) != len(y) or not len(x):
        raise DataProblem(f"the {name} part has {len(x)} inputs and {len(y)} targets.")
    for what, array in (("inputs", x), ("targets", y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataProblem(f"the {what} of the {name} part are not all finite. Fill or drop them first.")
    if np.issubdtype(y.dtype, np.integer) and y.min() < 0:
        raise DataProblem(f"classes are counted from 0; the {name} part has {int(y.min())}.")


def _fingerprint(parts: dict[str, Arrays]) -> str:
    content = hashlib.sha256()
    for name in sorted(parts):
        for array in parts[name]:
            content.update(f"{name}{array.dtype.str}{array.shape}".encode())
            content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()[:16]
