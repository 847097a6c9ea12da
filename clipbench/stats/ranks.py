"""Many candidates over many data sets: average ranks, Friedman's test and Nemenyi's critical difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from clipbench.stats.numbers import Floats
from clipbench.stats.paired import average_ranks

# The studentized range at 5 % and without end of freedom, over the square root of 2, for 2 to 20 candidates:
# scipy would take a second to import and to integrate it.
NEMENYI = (1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164, 3.219, 3.268, 3.313, 3.354, 3.391, 3.426,
           3.458, 3.489, 3.517, 3.544)  # fmt: skip


@dataclass(frozen=True)
class Ranking:
    """Average ranks, 1 being best; candidates closer than the critical difference are not told apart."""

    means: tuple[float, ...]
    p: float
    critical_difference: float  # NaN for more candidates than the table has


def ranking(values: ArrayLike) -> Ranking:
    """Of candidates (columns) over blocks (rows), where the largest value is best."""
    scores = np.asarray(values, float)
    blocks, candidates = scores.shape
    ranks = np.array([average_ranks(-row) for row in scores])
    return Ranking(tuple(ranks.mean(axis=0).tolist()), _friedman(ranks), critical_difference(candidates, blocks))


def critical_difference(candidates: int, blocks: int) -> float:
    if not 2 <= candidates < len(NEMENYI) + 2:
        return float("nan")
    return float(NEMENYI[candidates - 2] * np.sqrt(candidates * (candidates + 1) / (6 * blocks)))


def _friedman(ranks: Floats) -> float:
    """Its chi-squared approximation, corrected for ties; 1 where everything ties."""
    blocks, candidates = ranks.shape
    counts = [np.unique(row, return_counts=True)[1] for row in ranks]
    ties = sum(float((count**3 - count).sum()) for count in counts)
    correction = 1 - ties / (blocks * candidates * (candidates**2 - 1))
    if candidates < 2 or correction <= 0:
        return 1.0
    squares = float((ranks.sum(axis=0) ** 2).sum())
    statistic = 12 / (blocks * candidates * (candidates + 1)) * squares - 3 * blocks * (candidates + 1)
    return float(special.chdtrc(candidates - 1, statistic / correction))
