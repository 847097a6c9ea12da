"""Statistics of paired seeds: intervals, tests, corrections and effect sizes, as pure functions on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # scipy.stats would cost half a second of start-up

Floats = NDArray[np.float64]

LEVEL = 0.05
# 2**16 sign patterns are enumerated in milliseconds; beyond that they are drawn.
EXACT_PAIRS = 16
DRAWS = 49_999
# Sums of the same numbers in another order differ in their last digits and still tie.
TIE = 1e-10


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


@dataclass(frozen=True)
class Score:
    """How many pairs were won, tied and lost."""

    wins: int
    ties: int
    losses: int


def estimate(values: ArrayLike, level: float = LEVEL) -> Estimate:
    """The mean of the finite values with its t interval at confidence 1 - level."""
    finite = _finite(values)
    if not finite.size:
        return Estimate(np.nan, np.nan, np.nan, 0)
    mean = float(finite.mean())
    half = _t_quantile(finite.size, 1 - level / 2) * _standard_error(finite) if finite.size > 1 else np.nan
    return Estimate(mean, mean - half, mean + half, int(finite.size))


def standard_error_of(value: Estimate, level: float = LEVEL) -> float:
    """Of the mean, taken back from its interval; 0 where there is none."""
    if value.n < 2 or not np.isfinite(value.half_width):
        return 0.0
    return value.half_width / _t_quantile(value.n, 1 - level / 2)


def sign_flip_p(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the paired sign-flip permutation test of the mean.

    Exact up to 16 pairs that differ, else (1 + hits) / (1 + draws) with draws from a generator of its own.
    A pair without a difference contributes nothing whatever its sign, so it is left out.
    """
    nonzero = _nonzero(differences)
    if not nonzero.size:
        return 1.0
    sums = np.abs(_signs(nonzero.size, seed) @ nonzero)
    return _tail(sums, abs(nonzero.sum()), TIE * np.abs(nonzero).sum(), nonzero.size)


def sign_flip_p_after_choice(differences: ArrayLike, criteria: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test where the row was chosen for the largest mean of its criterion.

    Rows are candidates, columns pairs. The choice is made again under every pattern of signs, so picking
    the best of many equal candidates is not rewarded, however closely criterion and outcome move together.
    """
    outcomes, chosen_by = np.asarray(differences, float), np.asarray(criteria, float)
    if not outcomes.size:
        return 1.0
    signs = _signs(outcomes.shape[1], seed)
    chosen = _first_largest(signs @ chosen_by.T)
    sums = np.take_along_axis(signs @ outcomes.T, chosen[:, None], axis=1)[:, 0]
    observed = outcomes[_first_largest(chosen_by.sum(axis=1)[None])[0]].sum()
    tolerance = TIE * np.abs(outcomes).sum(axis=1).max()
    return min(1.0, 2 * _tail(sums, observed, tolerance, outcomes.shape[1]))


def worst_rank(differences: ArrayLike, won: ArrayLike, lost: ArrayLike) -> Floats:
    """The differences with pairs decided by divergence as gains or losses larger than all others together.

    A test of the mean then orders outcomes by divergences first and by the differences next. Candidates
    that are compared with one another go in together, as rows, to get the same size.
    """
    ranked: Floats = np.array(differences, float)
    magnitude = 2 * np.abs(ranked[np.isfinite(ranked)]).sum() or 1.0
    ranked[np.asarray(won, bool)] = magnitude
    ranked[np.asarray(lost, bool)] = -magnitude
    return ranked


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down correction; NaN stays NaN and does not count as a comparison."""
    raw = np.asarray(p_values, float)
    corrected: Floats = np.full(raw.shape, np.nan)
    order = [index for index in np.argsort(raw, kind="stable") if not np.isnan(raw[index])]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * raw[order]))
    return corrected


def equivalence_p(differences: ArrayLike, margin: float) -> float:
    """p of the two one-sided t tests (TOST) that the mean lies within +-margin."""
    finite = _finite(differences)
    if finite.size < 2:
        return float("nan")
    distance, error = margin - abs(float(finite.mean())), _standard_error(finite)
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(special.stdtr(finite.size - 1, -distance / error))


def cohen_dz(differences: ArrayLike) -> float:
    """Mean difference over the standard deviation of the differences; infinite where all are equal."""
    finite = _finite(differences)
    if finite.size < 2:
        return float("nan")
    mean, error = float(finite.mean()), _standard_error(finite)
    if error == 0:
        return float(np.copysign(np.inf, mean)) if mean else 0.0
    return mean / (error * float(np.sqrt(finite.size)))


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation: (ranks won - ranks lost) / all ranks; ties left out."""
    nonzero = _nonzero(differences)
    if not nonzero.size:
        return 0.0
    ranks = _average_ranks(np.abs(nonzero))
    return float((ranks * np.sign(nonzero)).sum() / ranks.sum())


def score(differences: ArrayLike) -> Score:
    """Wins, ties and losses of the pairs, where positive is better."""
    signs = np.sign(_finite(differences))
    return Score(*(int((signs == side).sum()) for side in (1, 0, -1)))


def smallest_p(pairs: int, comparisons: int = 1) -> float:
    """The smallest two-sided p that so many paired seeds can reach after Holm over the comparisons."""
    return min(1.0, max(comparisons, 1) * 2.0 ** (1 - pairs))


def seeds_needed(comparisons: int = 1, level: float = LEVEL) -> int:
    """The fewest paired seeds that can reach p < level after Holm over the comparisons."""
    seeds = 1
    while smallest_p(seeds, comparisons) >= level:
        seeds += 1
    return seeds


def _finite(values: ArrayLike) -> Floats:
    array: Floats = np.asarray(values, float).ravel()
    finite: Floats = array[np.isfinite(array)]
    return finite


def _nonzero(values: ArrayLike) -> Floats:
    finite = _finite(values)
    nonzero: Floats = finite[finite != 0]
    return nonzero


def _first_largest(sums: Floats) -> NDArray[np.intp]:
    """The column of the largest sum in each row; of columns that tie but for rounding, the first."""
    largest = sums.max(axis=1, keepdims=True)
    ties = sums >= largest - TIE * np.abs(sums).max(initial=0.0)
    return np.asarray(ties.argmax(axis=1), np.intp)


def _standard_error(values: Floats) -> float:
    """Of the mean; exactly 0 where the values differ by no more than rounding."""
    spread = float(values.std(ddof=1))
    rounding = 4 * np.finfo(float).eps * float(np.abs(values).max())
    return 0.0 if spread <= rounding else spread / float(np.sqrt(values.size))


def _t_quantile(n: int, probability: float) -> float:
    return float(special.stdtrit(n - 1, probability))


def _tail(sums: Floats, observed: float, tolerance: float, pairs: int) -> float:
    hits = int((sums >= observed - tolerance).sum())
    return hits / sums.size if pairs <= EXACT_PAIRS else (hits + 1) / (sums.size + 1)


@lru_cache(maxsize=4)
def _signs(pairs: int, seed: int) -> Floats:
    """Patterns of +1 and -1, one a row: all of them, or drawn ones where they are too many."""
    if pairs <= EXACT_PAIRS:
        bits = np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, (DRAWS, pairs))
    signs: Floats = 1.0 - 2.0 * bits.astype(float)
    signs.flags.writeable = False  # it is cached and shared
    return signs


def _average_ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[place].astype(float)
    return ranks
