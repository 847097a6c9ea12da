"""Split examples into training, validation and test parts, the same for every trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clipbench.datasets.dataset import Arrays, pair_of
from clipbench.plugins.registry import DataProblem

PARTS = ("train", "val", "test")


def parts_of(given: Any, options: Mapping[str, Any]) -> dict[str, Arrays]:
    """Return the parts that a data function gave, or split its examples into parts."""
    if isinstance(given, Mapping):
        if set(given) - set(PARTS) or "train" not in given:
            raise DataProblem(f"expected a mapping with `train` and optionally `val` and `test`, got {sorted(given)}.")
        if options.get("folds") is not None:
            raise DataProblem("folds are not supported for data that come in parts.")
        parts = {name: pair_of(part) for name, part in given.items() if not isinstance(part, float | None)}
        return parts | _val_of_train(parts, given.get("val"), options.get("split.seed", 0))
    x, y = pair_of(given)
    if len(x) != len(y):
        raise DataProblem(f"x and y must have the same length, got {len(x)} and {len(y)}.")
    shares = {name: float(options.get(f"split.{name}", 0.2)) for name in ("test", "val")}
    kept, parts, seed = np.arange(len(x)), {}, options.get("split.seed", 0)
    if options.get("folds") is not None:
        kept, fold = _fold(y, options["folds"], options["fold"], seed)
        parts["test"] = (x[fold], y[fold])
        shares["test"] = 0.0
    return parts | _split(x, y, kept, shares, seed)


def _val_of_train(parts: Mapping[str, Arrays], share: object, seed: int) -> dict[str, Arrays]:
    """Split the val part from the training part where it is given as a share."""
    x, y = parts["train"]
    return _split(x, y, np.arange(len(x)), {"val": share}, seed) if isinstance(share, float) else {}


def _fold(y: np.ndarray, folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices outside and inside one of `folds` equal parts, stratified by class."""
    from sklearn.model_selection import KFold, StratifiedKFold

    if len(y) < folds:
        raise DataProblem(f"{len(y)} examples are too few for {folds} folds.")
    kind = StratifiedKFold if _is_classes(y) and np.unique(y, return_counts=True)[1].min() >= folds else KFold
    kept, part = list(kind(folds, shuffle=True, random_state=seed).split(y, y))[fold]
    return kept, part


def _split(x: np.ndarray, y: np.ndarray, kept: np.ndarray, shares: Mapping[str, float], seed: int) -> dict[str, Arrays]:
    """Split shares of all examples from those that are kept, stratified by class."""
    from sklearn.model_selection import train_test_split

    parts = {}
    for name, share in shares.items():
        size = round(share * len(x))
        if share:
            if not 0 < size < len(kept):
                raise DataProblem(f"{len(x)} examples are too few for a {name} part of {share:g}.")
            kept, part = train_test_split(kept, test_size=size, random_state=seed, stratify=_strata(y[kept], size))
            parts[name] = (x[part], y[part])
    return {"train": (x[kept], y[kept]), **parts}


def _strata(y: np.ndarray, size: int) -> np.ndarray | None:
    """Return the classes to stratify by, or None if one of them has too few examples."""
    if not _is_classes(y):
        return None
    counts = np.unique(y, return_counts=True)[1]
    enough = counts.min() >= 2 and len(counts) <= min(size, len(y) - size)
    return y if enough else None


def _is_classes(y: np.ndarray) -> bool:
    return bool(np.issubdtype(y.dtype, np.integer)) and y.ndim == 1
