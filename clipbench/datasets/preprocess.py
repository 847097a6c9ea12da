"""Preprocess the parts of a data set: fill in missing inputs, resize images, standardize."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np

from clipbench.datasets.dataset import Arrays, is_labels
from clipbench.plugins.registry import DataProblem


def imputed(parts: dict[str, Arrays], how: object) -> dict[str, Arrays]:
    """Replace NaN by the `mean` or `median` of its column in the training part, or by 0 if the column has no value."""
    x = parts["train"][0]
    if how is None or x.dtype.kind != "f":
        return parts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of empty columns
        middle = np.nan_to_num(np.nanmean(x, axis=0) if how == "mean" else np.nanmedian(x, axis=0))
    return {name: (np.where(np.isnan(x), middle, x).astype(x.dtype), y) for name, (x, y) in parts.items()}


def resized(parts: dict[str, Arrays], size: object) -> dict[str, Arrays]:
    """Resize every image to `size` by `size` pixels, in its own layout: flat, [H, W] or [C, H, W]."""
    if not isinstance(size, int):
        return parts
    return {name: (_resized(x, size), y) for name, (x, y) in parts.items()}


def _resized(x: np.ndarray, size: int) -> np.ndarray:
    import torch

    images = torch.as_tensor(_as_images(x)).double()
    # Antialiasing only matters for shrinking: every pixel then contributes.
    scaled = torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True).numpy()
    shape = {2: (len(x), size * size), 3: (len(x), size, size)}.get(x.ndim, scaled.shape)
    floats = x.dtype if x.dtype.kind == "f" else np.dtype(float)
    return np.asarray(scaled.reshape(shape), floats)


def _as_images(x: np.ndarray) -> np.ndarray:
    """Return images of the shape [examples, channels, height, width]."""
    if x.ndim == 4:
        return x
    if x.ndim == 3:
        return x[:, None]
    side = math.isqrt(x.shape[1]) if x.ndim == 2 else 0
    if x.ndim != 2 or side * side != x.shape[1]:
        raise DataProblem(f"only images can be resized: flat square ones, [H, W] or [C, H, W], got {x.shape[1:]}.")
    return x.reshape(len(x), 1, side, side)


def standardized(parts: dict[str, Arrays]) -> dict[str, Arrays]:
    """Scale inputs and real targets, but not classes or labels of 0 and 1, to mean 0 and standard deviation 1."""
    x, y = parts["train"]
    scale_x = _scaling(x)
    scale_y = (lambda labels: labels) if y.dtype.kind != "f" or is_labels(y) else _scaling(y)
    return {name: (scale_x(x), scale_y(y)) for name, (x, y) in parts.items()}


def _scaling(array: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mean, std = array.mean(0), array.std(0)
    # The standard deviation that rounding gives a constant column, such as 0.1, 0.1, 0.1.
    rounding = len(array) * np.finfo(std.dtype).eps * np.abs(mean)
    std = np.where(std > rounding, std, 1.0)
    return lambda values: (values - mean) / std
