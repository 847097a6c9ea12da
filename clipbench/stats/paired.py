"""Effect sizes and tests of differences paired by seed; tests are exact for up to 16 pairs.

The sign-flip test is not scipy's `permutation_test`, because it can repeat the choice among candidates under every
pattern of signs, and takes a hundredth of the time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from clipbench.stats.intervals import LEVEL, Floats, finite, standard_error, t_quantile

# 2**16 sign patterns are enumerated in milliseconds; beyond that they are drawn.
EXACT_PAIRS = 16
DRAWS = 49_999
SIGNS_AT_ONCE = 2**18  # 2 MB of real numbers
# Sums of the same numbers in another order differ in their last digits, and count as equal.
TIE = 1e-10

Signs = NDArray[np.int8]  # [patterns, pairs]


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


def smallest_dz(differences: ArrayLike) -> float:
    """Cohen's dz at the end of the mean's 95 % t interval that is closer to zero, without its sign."""
    known = finite(differences)
    reach = t_quantile(known.size, 1 - LEVEL / 2) / np.sqrt(known.size) if known.size > 1 else np.nan
    return max(0.0, abs(cohen_dz(known)) - float(reach))


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
    sums = np.abs(_sums(_signs(known.size, seed), known))
    return _tail(sums, abs(known.sum()), TIE * np.abs(known).sum(), known.size)


def sign_flip_p_after_choice(differences: ArrayLike, criteria: ArrayLike, cases: ArrayLike = 0, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test for the row with the largest mean criterion, summed over the cases.

    Rows are candidates, columns are pairs; `cases` numbers the case of each row, and every case has one choice. The
    choices are repeated under every pattern of signs, so choosing the best of many equal candidates does not lower p,
    however strongly criterion and outcome are correlated.

    Very bad candidates, such as a threshold at which nothing is learned, must not raise p either: with flipped signs
    they would look better than any real improvement. Therefore rows that are significantly worse are centred at zero,
    and of a single case the sums of each row are replaced by their own p among all patterns (Westfall and Young 1993):
    a few large differences then count as much as many small ones. Over several cases sums are added, and the rows of a
    case are scaled to the root mean square of the chosen one, which leaves the observed sum as it is.
    """
    outcomes, chosen_by = np.asarray(differences, float), np.asarray(criteria, float)
    if not outcomes.size:
        return 1.0
    numbers = np.broadcast_to(cases, len(outcomes))
    pairs = outcomes.shape[1]
    signs, found = _signs(pairs, seed), np.unique(numbers)
    if len(found) == 1:
        observed, under_signs = _least_p(outcomes, chosen_by, signs)
    else:
        parts = [_best_row(outcomes[numbers == number], chosen_by[numbers == number], signs) for number in found]
        observed, under_signs = sum(best for best, _ in parts), np.sum([flipped for _, flipped in parts], axis=0)
    least = 1 / len(signs)  # the observed pattern is one of them
    tolerance = TIE * max(abs(observed), float(np.abs(under_signs).max(initial=0.0)))
    return min(1.0, 2 * max(least, _tail(under_signs, observed, tolerance, pairs)))


def _least_p(outcomes: Floats, criteria: Floats, signs: Signs) -> tuple[float, Floats]:
    """1 - p of the row with the largest criterion, and of the row so chosen under each pattern of signs.

    Of two rows with the same p, the one with the larger mean in units of its root mean square has the larger value.
    """
    best = outcomes[_first_largest(criteria.sum(axis=1)[None])[0]]
    observed = _standing(best, signs, np.ones((1, best.size), np.int8))[0]
    outcomes, criteria = _without_worse(outcomes, criteria)
    chosen = _first_largest(_sums(signs, criteria.T))
    under_signs = np.zeros(len(signs))
    for row in np.unique(chosen):
        under_signs[chosen == row] = _standing(outcomes[row], signs, signs[chosen == row])
    return float(observed), under_signs


def _standing(row: Floats, signs: Signs, patterns: Signs) -> Floats:
    """The share of all signs under which the sum of a row is smaller than under each of some patterns.

    Equal up to rounding is not smaller. The mean in units of the root mean square adds less than one step.
    """
    sums, values = _sums(signs, row), _sums(patterns, row)
    tolerance = TIE * np.abs(sums).max(initial=0.0)
    shares = np.searchsorted(np.sort(sums), values - tolerance) / sums.size
    standing: Floats = shares + _sums(patterns, _units(row[None])[0]) / row.size / (4 * sums.size)
    return standing


def _best_row(outcomes: Floats, criteria: Floats, signs: Signs) -> tuple[float, Floats]:
    """The sum of the row with the largest criterion, and that of the row so chosen under each pattern of signs."""
    best = outcomes[_first_largest(criteria.sum(axis=1)[None])[0]]
    size = float(np.sqrt((best**2).mean()))
    outcomes, criteria = _without_worse(outcomes, criteria)
    chosen = _first_largest(_sums(signs, criteria.T))
    flipped = np.take_along_axis(_sums(signs, _units(outcomes).T), chosen[:, None], axis=1)[:, 0]
    return float(best.sum()), size * flipped


def _without_worse(outcomes: Floats, criteria: Floats) -> list[Floats]:
    """Both with the rows that are significantly worse centred at zero."""
    worse = _shown_worse(outcomes)[:, None]
    return [np.where(worse, _centred(values), values) for values in (outcomes, criteria)]


def wilcoxon_p(differences: ArrayLike, seed: int = 0) -> float:
    """Two-sided p of the signed-rank test; pairs without a difference are left out.

    It is the sign-flip test of the signed ranks, which is exact with ties too; `scipy.stats.wilcoxon` is not.
    """
    return sign_flip_p(_signed_ranks(differences), seed)


def equivalence_p(differences: ArrayLike, margin: float, grain: float, candidates: int = 1) -> float:
    """p that the mean lies within +-margin: the larger one of two tests.

    The first are two one-sided t tests (TOST). They take pairs that tie for a proof: without spread, their p is 0.
    The second counts steps: `grain` is the smallest step of a difference, such as one example of the test data. A mean
    beyond the margin is at least margin / grain steps per pair, and the number of steps varies at least as a Poisson
    variable does. So p is at least the probability of no more steps than were seen. With several `candidates`, of which
    the one with the fewest steps may have been chosen, Bonferroni corrects it.
    """
    known = finite(differences)
    if known.size < 2:
        return float("nan")
    mean, error = abs(float(known.mean())), standard_error(known)
    p = float(mean >= margin)
    if error:
        p = special.stdtr(known.size - 1, (mean - margin) / error)  # the side whose p is larger
    return max(float(p), few_steps_p(mean, margin, grain, known.size, candidates))


def few_steps_p(mean: float, margin: float, grain: float, pairs: int, candidates: int = 1) -> float:
    """The probability of no more steps than a mean difference has, if it were as large as the margin in truth."""
    if not grain:
        return 0.0
    steps, least_steps = (value * pairs / grain for value in (max(mean, 0.0), margin))
    return float(min(1.0, candidates * special.gammaincc(steps + 1, least_steps)))  # Poisson: P(at most so many)


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


@lru_cache(maxsize=2)
def _signs(pairs: int, seed: int) -> Signs:
    """Patterns of +1 and -1, one a row: all of them, or random ones if there are too many."""
    signs = np.empty((2**pairs if pairs <= EXACT_PAIRS else DRAWS, pairs), np.int8)
    if pairs <= EXACT_PAIRS:
        signs[:] = 1 - 2 * (np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1)
    else:
        draw = np.random.default_rng(seed)
        for block in _blocks(signs):
            block[:] = 1 - 2 * draw.integers(0, 2, block.shape)
    signs.flags.writeable = False  # cached, and shared by all calls
    return signs


def _sums(signs: Signs, values: Floats) -> Floats:
    """Return `signs @ values` in blocks: as real numbers, all patterns of many pairs would take much memory."""
    sums: Floats = np.concatenate([block.astype(float) @ values for block in _blocks(signs)])
    return sums


def _blocks(signs: Signs) -> list[Signs]:
    """Return some rows after the other, at least one block."""
    rows = max(1, SIGNS_AT_ONCE // max(1, signs.shape[1]))
    return [signs[start : start + rows] for start in range(0, max(1, len(signs)), rows)]


def _signed_ranks(differences: ArrayLike) -> Floats:
    """Ranks of the absolute differences with the signs of the differences; ties get their average rank."""
    from scipy.stats import rankdata

    known = finite(differences)
    known = known[known != 0]
    ranks: Floats = np.sign(known) * rankdata(np.abs(known))
    return ranks
