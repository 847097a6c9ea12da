"""What a number of seeds can show: Holm's correction, the smallest possible p, and power."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from clipbench.stats.intervals import LEVEL, Floats, t_quantile
from clipbench.stats.paired import DRAWS, EXACT_PAIRS

MOST_SEEDS = 10_000


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down correction, which scipy lacks; NaN stays NaN and does not count as a comparison."""
    raw = np.asarray(p_values, float)
    corrected: Floats = np.full(raw.shape, np.nan)
    order = [index for index in np.argsort(raw, kind="stable") if not np.isnan(raw[index])]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * raw[order]))
    return corrected


def smallest_p(pairs: int, comparisons: int = 1) -> float:
    """The smallest two-sided p that a number of paired seeds can reach, after Holm's correction."""
    drawn = 0.0 if pairs <= EXACT_PAIRS else 2 / (DRAWS + 1)  # of a test that repeats a choice; without one half of it
    return min(1.0, max(comparisons, 1) * max(drawn, 2.0 ** (1 - pairs)))


def seeds_needed(comparisons: int = 1, level: float = LEVEL) -> int:
    """The smallest number of paired seeds that can reach p < level, after Holm's correction."""
    return next((n for n in range(1, MOST_SEEDS) if smallest_p(n, comparisons) < level), MOST_SEEDS)


def seeds_for_power(
    dz: float, comparisons: int = 1, choice: float = 1.0, power: float = 0.8, level: float = LEVEL
) -> float:
    """The number of paired seeds with which a t test has this power for an effect of this size.

    The level is that of the first comparison under Holm's correction, divided by `choice`: the factor by which a test
    that repeats the choice among candidates raises p. The result is at least `seeds_needed`, and infinite above
    `MOST_SEEDS`.
    """
    if not np.isfinite(dz):
        return float(seeds_needed(comparisons, level))
    for seeds in _growing(seeds_needed(comparisons, level)):
        critical = t_quantile(seeds, 1 - level / comparisons / choice / 2)
        # `nctdtr` is scipy.stats.nct.cdf. The other tail is left out: it has less than a hundredth of the power.
        if 1 - special.nctdtr(seeds - 1, abs(dz) * np.sqrt(seeds), critical) >= power:
            return float(seeds)
    return float("inf")


def more_seeds(pairs: int, p: float, level: float = LEVEL) -> int:
    """The number of seeds below which p of a sign-flip test stays at least at the level: one more halves it at best."""
    return pairs + math.ceil(math.log2(p / level)) if p > level else pairs


def _growing(first: int) -> Iterator[int]:
    """Every number up to 100, then steps of one per cent, up to `MOST_SEEDS`."""
    seeds = first
    while seeds <= MOST_SEEDS:
        yield seeds
        seeds += max(1, seeds // 100)
