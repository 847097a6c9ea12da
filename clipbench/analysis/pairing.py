"""Two arms paired by seed: differences, and tests that rank diverged trials last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from clipbench import stats
from clipbench.analysis.arms import Arm, Mask
from clipbench.stats import Floats


@dataclass(frozen=True, eq=False)
class Pairing:
    """The differences of two arms by seed; positive is better, NaN where there is no pair."""

    differences: Floats  # where both finished, or 0 where both diverged
    criteria: Floats  # the same of the validation metric
    won: Mask  # only the other diverged
    lost: Mask  # only the arm diverged
    both_diverged: Mask

    @property
    def finished(self) -> Floats:
        return self.differences[~self.both_diverged]

    @cached_property
    def ranked(self) -> Floats:
        """The differences, where a pair decided by divergence counts more than all others together."""
        return stats.worst_rank(self.differences, self.won, self.lost)

    @cached_property
    def p(self) -> float:
        return stats.sign_flip_p(self.ranked)

    @property
    def pairs(self) -> int:
        return int(np.isfinite(self.ranked).sum())

    @property
    def direction(self) -> float:
        """Positive if the arm is better, divergences first."""
        return float(np.nansum(self.ranked))

    @property
    def decided_by_divergence(self) -> bool:
        return bool((self.won | self.lost).any())

    def turned(self) -> Pairing:
        """The same with the arms exchanged."""
        return Pairing(-self.differences, -self.criteria, self.lost, self.won, self.both_diverged)


def pair(arm: Arm, other: Arm, sign: int) -> Pairing:
    """Pair two arms by seed. If both diverged they tie."""
    both = arm.present & other.present
    both_diverged = both & arm.diverged & other.diverged
    return Pairing(
        differences=np.where(both_diverged, 0.0, sign * (arm.value - other.value)),
        criteria=np.where(both_diverged, 0.0, arm.criterion - other.criterion),
        won=both & other.diverged & ~arm.diverged,
        lost=both & arm.diverged & ~other.diverged,
        both_diverged=both_diverged,
    )


def stacked(pairings: Sequence[Pairing]) -> Pairing:
    """Several pairings as the rows of one, so that pairs decided by divergence count the same in all of them."""
    columns = (np.array([getattr(each, column.name) for each in pairings]) for column in fields(Pairing))
    return Pairing(*columns)


def p_after_choice(candidates: Sequence[Pairing], margin: float = 0.0) -> float:
    """p that the best candidate is better by more than the margin, where the test repeats the choice among them.

    It uses the seeds that every candidate has.
    """
    if len(candidates) == 1:
        return stats.sign_flip_p(candidates[0].ranked - margin)
    every = stacked(candidates)
    criteria = stats.worst_rank(every.criteria, every.won, every.lost)
    whole = np.isfinite(every.ranked).all(axis=0) & np.isfinite(criteria).all(axis=0)
    return stats.sign_flip_p_after_choice(every.ranked[:, whole] - margin, criteria[:, whole])
