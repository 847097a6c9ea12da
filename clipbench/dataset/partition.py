"""Which examples are for training, validation and test: a partition that is the same for every trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clipbench.dataset.examples import Arrays, DataProblem, pair_of

PARTS = ("train", "val", "test")


def parts_of(given: Any, options: Mapping[str, Any]) -> dict[str, Arrays]:
    """The parts that a data function gave, or those that its examples are split into."""
    if isinstance(given, Mapping):
        if set(given) - set(PARTS) or "train" not in given:
            raise DataProblem(f"the mapping needs `train`, and may have `val` and `test`; it has {sorted(given)}.")
        return {name: pair_of(part) for name, part in given.items() if part is not None}
    x, y = pair_of(given)
    if len(x) != len(y):
        raise DataProblem(f"x has {len(x)} examples and y has {len(y)}.")
    shares = {name: float(options.get(f"split.{name}", 0.2)) for name in ("test", "val")}
    return _split(x, y, shares, options.get("split.seed", 0))


def _split(x: np.ndarray, y: np.ndarray, shares: Mapping[str, float], seed: int) -> dict[str, Arrays]:
    """Classes keep their shares in each part."""
    from sklearn.model_selection import train_test_split

    kept = np.arange(len(x))
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
    """The classes to keep the shares of, where each of them has enough examples."""
    if not np.issubdtype(y.dtype, np.integer) or y.ndim > 1:
        return None
    counts = np.unique(y, return_counts=True)[1]
    enough = counts.min() >= 2 and len(counts) <= min(size, len(y) - size)
    return y if enough else None
