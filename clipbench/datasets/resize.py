"""Images brought to another size, so that they fit a network whose size is fixed."""

from __future__ import annotations

import math

import numpy as np

from clipbench.datasets.dataset import Arrays
from clipbench.plugins.registry import DataProblem


def resized(parts: dict[str, Arrays], size: object) -> dict[str, Arrays]:
    """Every image with sides of so many pixels, laid out as it was: flat, [H, W] or [C, H, W]."""
    if not isinstance(size, int):
        return parts
    return {name: (_resized(x, size), y) for name, (x, y) in parts.items()}


def _resized(x: np.ndarray, size: int) -> np.ndarray:
    import torch

    images = torch.as_tensor(_as_images(x)).double()
    # Antialiasing changes nothing where images grow; where they shrink, no pixel is passed over.
    scaled = torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True).numpy()
    shape = {2: (len(x), size * size), 3: (len(x), size, size)}.get(x.ndim, scaled.shape)
    floats = x.dtype if x.dtype.kind == "f" else np.dtype(float)
    return np.asarray(scaled.reshape(shape), floats)


def _as_images(x: np.ndarray) -> np.ndarray:
    """[examples, channels, height, width]"""
    if x.ndim == 4:
        return x
    if x.ndim == 3:
        return x[:, None]
    side = math.isqrt(x.shape[1]) if x.ndim == 2 else 0
    if x.ndim != 2 or side * side != x.shape[1]:
        raise DataProblem(f"only images can be resized: flat square ones, [H, W] or [C, H, W], got {x.shape[1:]}.")
    return x.reshape(len(x), 1, side, side)
