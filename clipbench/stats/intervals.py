"""Means with their intervals: by t, by bootstrap, and with the choice of the best of many taken out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from clipbench.stats.numbers import LEVEL, Floats, finite, standard_error, t_quantile

RESAMPLES = 9_999


@dataclass(frozen=True)
class Estimate:
    """A mean of `n` values with the ends of its interval; NaN where there are too few values."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def estimate(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """The mean of the finite values with its t interval at confidence 1 - level."""
    known = finite(values)
    if not known.size:
        return Estimate(np.nan, np.nan, np.nan, 0)
    mean = float(known.mean())
    half = t_quantile(known.size, 1 - level / 2) * standard_error(known) if known.size > 1 else np.nan
    return Estimate(mean, mean - half, mean + half, int(known.size))


def standard_error_of(value: Estimate, level: float = LEVEL) -> float:
    """Of the mean, taken back from its interval; 0 where there is none."""
    if value.n < 2 or not np.isfinite(value.half_width):
        return 0.0
    return value.half_width / t_quantile(value.n, 1 - level / 2)


def bootstrap(values: ArrayLike, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The mean of the finite values with its BCa bootstrap interval.

    Falls back to the t interval where all values are equal, or fewer than three: there is nothing to resample.
    """
    known = finite(values)
    if known.size < 3 or standard_error(known) == 0:
        return estimate(known, level)
    mean = float(known.mean())
    means = known[_resamples(known.size, seed)].mean(axis=1)
    ends = np.quantile(means, _adjusted(known, mean, means, level))
    return Estimate(mean, float(ends[0]), float(ends[1]), int(known.size))


def nested(outcomes: ArrayLike, criteria: ArrayLike) -> Floats:
    """The outcome of each column under the row that the other columns choose by their mean criterion.

    Its mean is free of the optimism of choosing on the same seeds. Rows are candidates, columns seeds.
    """
    results, chosen_by = np.asarray(outcomes, float), np.asarray(criteria, float)
    others = chosen_by.sum(axis=1, keepdims=True) - chosen_by
    nested: Floats = np.take_along_axis(results, others.argmax(axis=0)[None], axis=0)[0]
    return nested


def _adjusted(values: Floats, mean: float, means: Floats, level: float) -> Floats:
    """Efron's bias-corrected and accelerated percentiles."""
    below = ((means < mean).sum() + (means <= mean).sum()) / (2 * means.size)
    bias = special.ndtri(below)
    jackknife = (values.sum() - values) / (values.size - 1)
    away = jackknife.mean() - jackknife
    acceleration = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    shifted = bias + special.ndtri(np.array([level / 2, 1 - level / 2]))
    percentiles: Floats = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    return percentiles


@lru_cache(maxsize=4)
def _resamples(n: int, seed: int) -> NDArray[np.int64]:
    drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    drawn.flags.writeable = False  # it is cached and shared
    return drawn
