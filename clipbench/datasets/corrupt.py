"""Corrupt the training part on purpose; validation and test data stay clean.

Each kind of corruption has its own random numbers, so that a larger share contains a smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clipbench.datasets.dataset import Arrays, is_labels
from clipbench.plugins.registry import DataProblem

KINDS = ("label_flip", "outliers", "noise", "missing")
# Distance of an outlier, in standard deviations of its column.
FAR = 10.0


def corrupted(parts: dict[str, Arrays], damage: Mapping[str, Any]) -> dict[str, Arrays]:
    """Corrupt the training part. `damage` gives the amount of each kind; `missing` values come last and are imputed."""
    if not any(damage.get(kind) for kind in KINDS):
        return parts
    seed = damage.get("seed") or 0
    draws = {kind: np.random.default_rng([seed, number]) for number, kind in enumerate(KINDS)}
    x, y = parts["train"]
    if damage.get("label_flip"):
        y = _flipped(y, damage["label_flip"], _classes(parts), draws["label_flip"])
    if any(damage.get(kind) for kind in ("outliers", "noise", "missing")) and x.dtype.kind != "f":
        raise DataProblem("only labels can be corrupted here: the inputs are integers.")
    if damage.get("outliers"):
        x = _with_outliers(x, damage["outliers"], draws["outliers"])
        y = _with_outliers(y, damage["outliers"], draws["outliers"]) if y.dtype.kind == "f" and not is_labels(y) else y
    if damage.get("noise"):
        x = x + damage["noise"] * _spread(x) * draws["noise"].standard_normal(x.shape)
    if damage.get("missing"):
        x = _imputed(x, draws["missing"].random(x.shape) < damage["missing"])
    return parts | {"train": (np.asarray(x, parts["train"][0].dtype), y)}


def _flipped(y: np.ndarray, share: float, classes: int, draw: np.random.Generator) -> np.ndarray:
    """Replace labels by another class, chosen uniformly, with the probability `share`."""
    chosen = draw.random(y.shape) < share
    if is_labels(y):
        return np.where(chosen, 1 - y, y)
    if y.dtype.kind != "i" or classes < 2:
        raise DataProblem("label_flip requires classes, but the targets are real numbers.")
    return np.where(chosen, (y + draw.integers(1, classes, y.shape)) % classes, y)


def _classes(parts: Mapping[str, Arrays]) -> int:
    return max(int(y.max()) for _, y in parts.values()) + 1


def _with_outliers(values: np.ndarray, share: float, draw: np.random.Generator) -> np.ndarray:
    """Move each element far up or down with the probability `share`."""
    chosen = draw.random(values.shape) < share
    away = FAR * _spread(values) * draw.choice([-1.0, 1.0], values.shape)
    return np.asarray(np.where(chosen, values + away, values), values.dtype)


def _imputed(x: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Replace missing values by the mean of their column, or by 0 if nothing is left of it."""
    left = (~gone).sum(0)
    means = np.where(gone, 0.0, x).sum(0) / np.maximum(left, 1)
    return np.where(gone, means, x)


def _spread(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.std(0))
