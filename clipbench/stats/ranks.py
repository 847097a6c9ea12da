"""Many candidates on many data sets: average ranks, Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from clipbench.stats.intervals import LEVEL


@dataclass(frozen=True)
class Ranking:
    """Average ranks, 1 is best; candidates closer than the critical difference are not significantly different."""

    means: tuple[float, ...]
    p: float
    critical_difference: float


def ranking(values: ArrayLike) -> Ranking:
    """Rank at least three candidates (columns) over blocks (rows); the largest value is best."""
    from scipy.stats import friedmanchisquare, rankdata

    scores = np.asarray(values, float)
    blocks, candidates = scores.shape
    with np.errstate(invalid="ignore"):  # if everything ties, Friedman's statistic is 0 / 0
        p = float(friedmanchisquare(*scores.T).pvalue)
    means = rankdata(-scores, axis=1).mean(axis=0).tolist()
    return Ranking(tuple(means), 1.0 if np.isnan(p) else p, critical_difference(candidates, blocks))


def critical_difference(candidates: int, blocks: int) -> float:
    """The difference of average ranks that is significant by Nemenyi's test."""
    from scipy.stats import studentized_range

    quantile = studentized_range.ppf(1 - LEVEL, candidates, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(candidates * (candidates + 1) / (6 * blocks)))
