"""Split examples into training, validation and test parts, the same for every trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clipbench.datasets.dataset import Arrays, pair_of
from clipbench.datasets.stratified import random_fold, random_part, stratified_fold, stratified_part
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
    return {name: (x[chosen], y[chosen]) for name, chosen in indices_of_parts(len(x), y, options).items()}


def indices_of_parts(examples: int, y: np.ndarray | None, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the indices of the examples of each part, stratified by class if the targets are known."""
    shares = {name: float(options.get(f"split.{name}", 0.2)) for name in ("test", "val")}
    kept, parts, seed = np.arange(examples), {}, options.get("split.seed", 0)
    if options.get("folds") is not None:
        kept, parts["test"] = _fold(examples, y, options["folds"], options["fold"], seed)
        shares["test"] = 0.0
    return parts | split_off(examples, y, kept, shares, seed)


def _val_of_train(parts: Mapping[str, Arrays], share: object, seed: int) -> dict[str, Arrays]:
    """Split the val part from the training part where it is given as a share."""
    x, y = parts["train"]
    if not isinstance(share, float):
        return {}
    chosen = split_off(len(x), y, np.arange(len(x)), {"val": share}, seed)
    return {name: (x[rows], y[rows]) for name, rows in chosen.items()}


def _fold(examples: int, y: np.ndarray | None, folds: int, fold: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices outside and inside one of `folds` equal parts, stratified by class."""
    if examples < folds:
        raise DataProblem(f"{examples} examples are too few for {folds} folds.")
    if y is not None and _is_classes(y) and np.unique(y, return_counts=True)[1].min() >= folds:
        return stratified_fold(y, folds, fold, seed)
    return random_fold(examples, folds, fold, seed)


def split_off(
    examples: int, y: np.ndarray | None, kept: np.ndarray, shares: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Return the indices of shares of all examples, taken from those that are kept, and of the rest as `train`."""
    parts = {}
    for name, share in shares.items():
        size = round(share * examples)
        if share:
            if not 0 < size < len(kept):
                raise DataProblem(f"{examples} examples are too few for a {name} part of {share:g}.")
            rest, part = _part(len(kept), None if y is None else y[kept], size, seed)
            parts[name], kept = kept[part], kept[rest]
    return {"train": kept, **parts}


def _part(examples: int, y: np.ndarray | None, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices outside and inside a part, stratified unless a class has too few examples."""
    if y is not None and _is_classes(y):
        counts = np.unique(y, return_counts=True)[1]
        if counts.min() >= 2 and len(counts) <= min(size, len(y) - size):
            return stratified_part(y, size, seed)
    return random_part(examples, size, seed)


def _is_classes(y: np.ndarray) -> bool:
    return bool(np.issubdtype(y.dtype, np.integer)) and y.ndim == 1
