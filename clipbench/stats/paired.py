"""Tests on differences paired by seed, exact where the patterns of signs can be enumerated."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from clipbench.stats.numbers import LEVEL, TIE, Floats, finite, nonzero, standard_error, t_quantile

# 2**16 sign patterns are enumerated in milliseconds; beyond that they are drawn.
EXACT_PAIRS = 16
DRAWS = 49_999


def sign_flip_p(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the paired sign-flip permutation test of the mean.

    Exact up to 16 pairs that differ, else (1 + hits) / (1 + draws) with draws from a generator of its own.
    A pair without a difference contributes nothing whatever its sign, so it is left out.
    """
    known = nonzero(differences)
    if not known.size:
        return 1.0
    sums = np.abs(_signs(known.size, seed) @ known)
    return _tail(sums, abs(known.sum()), TIE * np.abs(known).sum(), known.size)


def sign_flip_p_after_choice(differences: ArrayLike, criteria: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test where the row was chosen for the largest mean of its criterion.

    Rows are candidates, columns pairs. The choice is made again under every pattern of signs, so picking
    the best of many equal candidates is not rewarded, however closely criterion and outcome move together.

    Nor is it punished to have tried what nobody would choose, such as a threshold at which nothing is learned: turned
    around by signs, such a candidate would look better than anything real. So each is measured in units of its own
    root mean square, and those that are shown to be worse themselves count as making no difference.
    """
    outcomes, chosen_by = np.asarray(differences, float), np.asarray(criteria, float)
    if not outcomes.size:
        return 1.0
    observed = _units(outcomes)[_first_largest(chosen_by.sum(axis=1)[None])[0]].sum()
    worse = _shown_worse(chosen_by)[:, None]
    outcomes, chosen_by = (np.where(worse, _centred(values), values) for values in (outcomes, chosen_by))
    signs = _signs(outcomes.shape[1], seed)
    chosen = _first_largest(signs @ chosen_by.T)
    sums = np.take_along_axis(signs @ _units(outcomes).T, chosen[:, None], axis=1)[:, 0]
    least = 1 / len(signs)  # what was observed is a pattern too
    return min(1.0, 2 * max(least, _tail(sums, observed, TIE * outcomes.shape[1], outcomes.shape[1])))


def wilcoxon_p(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the signed-rank test: the sign-flip test of the ranks. Pairs without a difference are left out."""
    known = nonzero(differences)
    return sign_flip_p(np.sign(known) * average_ranks(np.abs(known)), seed) if known.size else 1.0


def equivalence_p(differences: ArrayLike, margin: float) -> float:
    """p of the two one-sided t tests (TOST) that the mean lies within +-margin."""
    known = finite(differences)
    if known.size < 2:
        return float("nan")
    distance, error = margin - abs(float(known.mean())), standard_error(known)
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(special.stdtr(known.size - 1, -distance / error))


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


def _units(values: Floats) -> Floats:
    """Each row by its root mean square, which no pattern of signs changes."""
    size = np.sqrt((values**2).mean(axis=1, keepdims=True))
    units: Floats = np.divide(values, size, out=np.zeros_like(values), where=size > 0)
    return units


def _shown_worse(values: Floats) -> NDArray[np.bool_]:
    """The rows whose t interval lies below zero, after Bonferroni: of equal candidates hardly ever any."""
    pairs = values.shape[1]
    if pairs < 2:
        return np.zeros(len(values), bool)
    reach = t_quantile(pairs, 1 - LEVEL / 2 / len(values)) * values.std(axis=1, ddof=1) / np.sqrt(pairs)
    return np.asarray(values.mean(axis=1) + reach < 0)


def _centred(values: Floats) -> Floats:
    """Each row around zero, as far as it was around its mean."""
    pairs = values.shape[1]
    away: Floats = (values - values.mean(axis=1, keepdims=True)) * np.sqrt(pairs / max(pairs - 1, 1))
    return away


def _first_largest(sums: Floats) -> NDArray[np.intp]:
    """The column of the largest sum in each row; of columns that tie but for rounding, the first."""
    largest = sums.max(axis=1, keepdims=True)
    ties = sums >= largest - TIE * np.abs(sums).max(initial=0.0)
    return np.asarray(ties.argmax(axis=1), np.intp)


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


def average_ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[place].astype(float)
    return ranks
