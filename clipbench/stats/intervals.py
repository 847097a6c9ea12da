"""Means with their intervals: by Student's t, by bootstrap, and corrected for the choice of the best candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # scipy.stats takes much longer to import: the functions that need it do that

Floats = NDArray[np.float64]

LEVEL = 0.05
# Values whose 9,999 resamples are taken at once: they take 10 MB, which fits into a processor's cache.
VALUES_AT_ONCE = 128
RESAMPLED_AT_ONCE = 10_000 * VALUES_AT_ONCE


@dataclass(frozen=True)
class Estimate:
    """The mean of `n` values and the ends of its interval; NaN if there are too few values."""

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
    """The standard error of the mean, computed from its t interval; 0 if there is none."""
    if value.n < 2 or not np.isfinite(value.half_width):
        return 0.0
    return value.half_width / t_quantile(value.n, 1 - level / 2)


def bootstrap(samples: Sequence[ArrayLike], level: float = LEVEL) -> list[Estimate]:
    """The mean of the finite values of each sample with its BCa bootstrap interval.

    It is the t interval if all values are equal or there are fewer than three: there is nothing to resample.
    """
    known = [finite(sample) for sample in samples]
    intervals = [estimate(values, level) for values in known]
    by_size: dict[int, list[int]] = {}
    for number, interval in enumerate(intervals):
        if interval.n > 2 and interval.half_width > 0:
            by_size.setdefault(interval.n, []).append(number)
    for size, numbers in by_size.items():
        rows = max(1, VALUES_AT_ONCE // size)
        for start in range(0, len(numbers), rows):
            chunk = numbers[start : start + rows]
            ends = _bca(np.array([known[number] for number in chunk]), level)
            for number, low, high in zip(chunk, *ends, strict=True):
                intervals[number] = replace(intervals[number], low=float(low), high=float(high))
    return intervals


def _bca(rows: Floats, level: float) -> tuple[Floats, Floats]:
    """All rows are resampled alike, in one call: a call for each row takes three times as long."""
    from scipy.stats import bootstrap

    # Row by row, so that the order of a sum, and with it its last digits, does not depend on the number of rows.
    def mean(values: Floats, axis: int) -> Floats:
        return np.stack([row.mean(axis=axis) for row in values])

    found = bootstrap(
        (rows,),
        mean,
        batch=max(1, RESAMPLED_AT_ONCE // rows.size),
        axis=-1,
        confidence_level=1 - level,
        method="BCa",
        rng=np.random.default_rng(0),
        vectorized=True,
    )
    return found.confidence_interval.low, found.confidence_interval.high


def nested(outcomes: ArrayLike, criteria: ArrayLike) -> Floats:
    """For each column, the outcome of the row with the best mean criterion over the other columns.

    Rows are candidates, columns are seeds. The mean of the result is not biased by choosing and reporting on the same
    seeds.
    """
    results, chosen_by = np.asarray(outcomes, float), np.asarray(criteria, float)
    others = chosen_by.sum(axis=1, keepdims=True) - chosen_by
    nested: Floats = np.take_along_axis(results, others.argmax(axis=0)[None], axis=0)[0]
    return nested


def finite(values: ArrayLike) -> Floats:
    """The finite values as a flat array."""
    array: Floats = np.asarray(values, float).ravel()
    known: Floats = array[np.isfinite(array)]
    return known


def standard_error(values: Floats) -> float:
    """The standard error of the mean; exactly 0 if the values differ by no more than rounding."""
    spread = float(values.std(ddof=1))
    rounding = 4 * np.finfo(float).eps * float(np.abs(values).max())
    return 0.0 if spread <= rounding else spread / float(np.sqrt(values.size))


def t_quantile(n: int, probability: float) -> float:
    """The quantile of Student's t distribution for the mean of n values."""
    return float(special.stdtrit(n - 1, probability))  # scipy.stats.t.ppf, without the import of scipy.stats
