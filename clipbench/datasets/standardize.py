"""Mean 0 and standard deviation 1 by the training part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clipbench.datasets.dataset import Arrays, is_labels


def standardized(parts: dict[str, Arrays]) -> dict[str, Arrays]:
    """Inputs, and real targets too, so that learning rates carry over; not classes, nor labels of 0 and 1."""
    x, y = parts["train"]
    scale_x = _scaling(x)
    scale_y = (lambda labels: labels) if y.dtype.kind != "f" or is_labels(y) else _scaling(y)
    return {name: (scale_x(x), scale_y(y)) for name, (x, y) in parts.items()}


def _scaling(array: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mean, std = array.mean(0), array.std(0)
    # What rounding makes of a column that does not vary, such as 0.1, 0.1, 0.1.
    rounding = len(array) * np.finfo(std.dtype).eps * np.abs(mean)
    std = np.where(std > rounding, std, 1.0)
    return lambda values: (values - mean) / std
