"""Two arms paired by seed: differences, and tests that rank diverged trials last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


def p_value(pairing: Pairing) -> float:
    return stats.sign_flip_p(pairing.ranked)


def p_after_choice(chosen: Pairing, candidates: Sequence[Pairing]) -> float:
    """p of the chosen threshold, where the test repeats the choice among all thresholds of the strategy.

    It uses the seeds that every threshold has.
    """
    if len(candidates) == 1:
        return p_value(chosen)
    won = np.array([candidate.won for candidate in candidates])
    lost = np.array([candidate.lost for candidate in candidates])
    outcomes = stats.worst_rank([candidate.differences for candidate in candidates], won, lost)
    criteria = stats.worst_rank([candidate.criteria for candidate in candidates], won, lost)
    whole = np.isfinite(outcomes).all(axis=0) & np.isfinite(criteria).all(axis=0)
    return stats.sign_flip_p_after_choice(outcomes[:, whole], criteria[:, whole])
