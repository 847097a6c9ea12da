"""Two arms paired by seed: differences in which diverged trials rank last."""

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
    same_training: Mask  # both ended with the same weights

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
    def decided_by_divergence(self) -> bool:
        return bool((self.won | self.lost).any())

    def turned(self) -> Pairing:
        """The same with the arms exchanged."""
        return Pairing(-self.differences, -self.criteria, self.lost, self.won, self.both_diverged, self.same_training)


def pair(arm: Arm, other: Arm, sign: int) -> Pairing:
    """Pair two arms by seed. If both diverged they tie."""
    both = arm.present & other.present
    both_diverged = both & arm.ranks_last & other.ranks_last
    return Pairing(
        differences=np.where(both_diverged, 0.0, sign * (arm.value - other.value)),
        criteria=np.where(both_diverged, 0.0, arm.criterion - other.criterion),
        won=both & other.ranks_last & ~arm.ranks_last,
        lost=both & arm.ranks_last & ~other.ranks_last,
        both_diverged=both_diverged,
        same_training=_same_training(arm, other),
    )


def _same_training(arm: Arm, other: Arm) -> Mask:
    """The seeds on which both ended with the same weights. Where weights are unknown: on which no rule ever fired."""
    norms = np.array([each.measures["weight_norm"] for each in (arm, other)])
    fired = np.array([each.measures["clip/fired_share"] for each in (arm, other)])
    unclipped = (fired == 0).all(axis=0) & (arm.setting == other.setting)
    same: Mask = np.where(np.isfinite(norms).all(axis=0), norms[0] == norms[1], unclipped) | (arm.ids == other.ids)
    return same


def stacked(pairings: Sequence[Pairing]) -> Pairing:
    """Several pairings as the rows of one, so that pairs decided by divergence count the same in all of them."""
    columns = (np.array([getattr(each, column.name) for each in pairings]) for column in fields(Pairing))
    return Pairing(*columns)
