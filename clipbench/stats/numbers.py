"""What all statistics here need: finite numbers, their standard error, the quantiles of t."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # scipy.stats would cost half a second of start-up

Floats = NDArray[np.float64]

LEVEL = 0.05
# Sums of the same numbers in another order differ in their last digits and still tie.
TIE = 1e-10


def finite(values: ArrayLike) -> Floats:
    array: Floats = np.asarray(values, float).ravel()
    known: Floats = array[np.isfinite(array)]
    return known


def nonzero(values: ArrayLike) -> Floats:
    known = finite(values)
    different: Floats = known[known != 0]
    return different


def standard_error(values: Floats) -> float:
    """Of the mean; exactly 0 where the values differ by no more than rounding."""
    spread = float(values.std(ddof=1))
    rounding = 4 * np.finfo(float).eps * float(np.abs(values).max())
    return 0.0 if spread <= rounding else spread / float(np.sqrt(values.size))


def t_quantile(n: int, probability: float) -> float:
    return float(special.stdtrit(n - 1, probability))
