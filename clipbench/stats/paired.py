"""Effect sizes and tests of differences paired by seed; tests are exact for up to 16 pairs.

The sign-flip test is not scipy's `permutation_test`, because it can repeat the choice among candidates under every
pattern of signs, and takes a hundredth of the time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipbench.stats.intervals import LEVEL, Floats, finite, standard_error, t_quantile

# 2**16 sign patterns are enumerated in milliseconds; beyond that they are drawn.
EXACT_PAIRS = 16
DRAWS = 49_999
# Sums of the same numbers in another order differ in their last digits, and count as equal.
TIE = 1e-10


@dataclass(frozen=True)
class WinTieLoss:
    """The numbers of pairs that were won, tied and lost."""

    wins: int
    ties: int
    losses: int


def wins_ties_losses(differences: ArrayLike) -> WinTieLoss:
    """Count wins, ties and losses; a positive difference is a win."""
    signs = np.sign(finite(differences))
    return WinTieLoss(*(int((signs == side).sum()) for side in (1, 0, -1)))


def cohen_dz(differences: ArrayLike) -> float:
    """Mean difference over the standard deviation of the differences; infinite if all are equal."""
    known = finite(differences)
    if known.size < 2:
        return float("nan")
    mean, error = float(known.mean()), standard_error(known)
    if error == 0:
        return float(np.copysign(np.inf, mean)) if mean else 0.0
    return mean / (error * float(np.sqrt(known.size)))


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation: (ranks won - ranks lost) / all ranks; ties are left out."""
    ranks = _signed_ranks(differences)
    return float(ranks.sum() / np.abs(ranks).sum()) if ranks.size else 0.0


def sign_flip_p(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the paired sign-flip permutation test of the mean.

    Exact up to 16 pairs that differ, else (1 + hits) / (1 + draws) with draws from a generator of its own.
    Pairs without a difference are left out: their sign makes no difference.
    """
    known = finite(differences)
    known = known[known != 0]
    if not known.size:
        return 1.0
    sums = np.abs(_signs(known.size, seed) @ known)
    return _tail(sums, abs(known.sum()), TIE * np.abs(known).sum(), known.size)


def sign_flip_p_after_choice(differences: ArrayLike, criteria: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test for the row with the largest mean criterion.

    Rows are candidates, columns are pairs. The choice is repeated under every pattern of signs, so choosing the best
    of many equal candidates does not lower p, however strongly criterion and outcome are correlated.

    Very bad candidates, such as a threshold at which nothing is learned, must not raise p either: with flipped signs
    they would look better than any real improvement. Therefore each row is divided by its root mean square, and rows
    that are significantly worse are centred at zero.
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
    least = 1 / len(signs)  # the observed pattern is one of them
    return min(1.0, 2 * max(least, _tail(sums, observed, TIE * outcomes.shape[1], outcomes.shape[1])))


def wilcoxon_p(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the signed-rank test; pairs without a difference are left out.

    It is the sign-flip test of the signed ranks, which is exact with ties too; `scipy.stats.wilcoxon` is not.
    """
    return sign_flip_p(_signed_ranks(differences), seed)


def equivalence_p(differences: ArrayLike, margin: float) -> float:
    """p of the two one-sided t tests (TOST) that the mean lies within +-margin."""
    from scipy.stats import ttest_1samp

    known = finite(differences)
    if known.size < 2:
        return float("nan")
    if standard_error(known) == 0:
        return 0.0 if abs(float(known.mean())) < margin else 1.0
    above = ttest_1samp(known, -margin, alternative="greater").pvalue
    below = ttest_1samp(known, margin, alternative="less").pvalue
    return float(max(above, below))


def worst_rank(differences: ArrayLike, won: ArrayLike, lost: ArrayLike) -> Floats:
    """Replace pairs decided by divergence by gains or losses larger than all other differences together.

    A test of the mean then orders outcomes by divergences first, then by differences. Candidates that are compared
    with each other are passed together, as rows, so that they get the same magnitude.
    """
    ranked: Floats = np.array(differences, float)
    magnitude = 2 * np.abs(ranked[np.isfinite(ranked)]).sum() or 1.0
    ranked[np.asarray(won, bool)] = magnitude
    ranked[np.asarray(lost, bool)] = -magnitude
    return ranked


def _units(values: Floats) -> Floats:
    """Divide each row by its root mean square, which does not depend on signs."""
    size = np.sqrt((values**2).mean(axis=1, keepdims=True))
    units: Floats = np.divide(values, size, out=np.zeros_like(values), where=size > 0)
    return units


def _shown_worse(values: Floats) -> NDArray[np.bool_]:
    """The rows whose t interval, corrected by Bonferroni, lies below zero."""
    pairs = values.shape[1]
    if pairs < 2:
        return np.zeros(len(values), bool)
    reach = t_quantile(pairs, 1 - LEVEL / 2 / len(values)) * values.std(axis=1, ddof=1) / np.sqrt(pairs)
    return np.asarray(values.mean(axis=1) + reach < 0)


def _centred(values: Floats) -> Floats:
    """Shift the mean of each row to zero, and keep its spread."""
    pairs = values.shape[1]
    away: Floats = (values - values.mean(axis=1, keepdims=True)) * np.sqrt(pairs / max(pairs - 1, 1))
    return away


def _first_largest(sums: Floats) -> NDArray[np.intp]:
    """The column of the largest sum in each row; of sums that are equal up to rounding, the first."""
    largest = sums.max(axis=1, keepdims=True)
    ties = sums >= largest - TIE * np.abs(sums).max(initial=0.0)
    return np.asarray(ties.argmax(axis=1), np.intp)


def _tail(sums: Floats, observed: float, tolerance: float, pairs: int) -> float:
    hits = int((sums >= observed - tolerance).sum())
    return hits / sums.size if pairs <= EXACT_PAIRS else (hits + 1) / (sums.size + 1)


@lru_cache(maxsize=4)
def _signs(pairs: int, seed: int) -> Floats:
    """Patterns of +1 and -1, one a row: all of them, or random ones if there are too many."""
    if pairs <= EXACT_PAIRS:
        bits = np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1
    else:
        bits = np.random.default_rng(seed).integers(0, 2, (DRAWS, pairs))
    signs: Floats = 1.0 - 2.0 * bits.astype(float)
    signs.flags.writeable = False  # cached, and shared by all calls
    return signs


def _signed_ranks(differences: ArrayLike) -> Floats:
    """Ranks of the absolute differences with the signs of the differences; ties get their average rank."""
    from scipy.stats import rankdata

    known = finite(differences)
    known = known[known != 0]
    ranks: Floats = np.sign(known) * rankdata(np.abs(known))
    return ranks
