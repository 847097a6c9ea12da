"""What is missing of the inputs, filled in by what the training part has."""

from __future__ import annotations

import warnings

import numpy as np

from clipbench.datasets.dataset import Arrays


def imputed(parts: dict[str, Arrays], how: object) -> dict[str, Arrays]:
    """NaN of every part becomes the `mean` or `median` of its column in the training part; 0 where that has nothing."""
    x = parts["train"][0]
    if how is None or x.dtype.kind != "f":
        return parts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns that hold nothing
        middle = np.nan_to_num(np.nanmean(x, axis=0) if how == "mean" else np.nanmedian(x, axis=0))
    return {name: (np.where(np.isnan(x), middle, x).astype(x.dtype), y) for name, (x, y) in parts.items()}
