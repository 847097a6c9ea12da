"""What verdicts and claims test: the difference of two arms, with the choice of their thresholds repeated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from clipbench import stats
from clipbench.analysis.arms import Arm
from clipbench.analysis.pairing import Pairing, pair, stacked
from clipbench.stats import Floats


@dataclass(frozen=True, eq=False)
class Case:
    """Two arms of one setting, and the candidates among which validation data chose them."""

    pairing: Pairing
    by_left: tuple[Pairing, ...]  # every candidate for the left arm, against the right arm
    by_right: tuple[Pairing, ...]  # the left arm against every candidate for the right arm

    @classmethod
    def of(cls, left: Arm, right: Arm, sign: int, lefts: Sequence[Arm] = (), rights: Sequence[Arm] = ()) -> Case:
        """Compare two arms. Without candidates, an arm was not chosen."""
        return cls(
            pair(left, right, sign),
            tuple(pair(each, right, sign) for each in lefts or (left,)),
            tuple(pair(left, each, sign) for each in rights or (right,)),
        )

    def turned(self) -> Case:
        """The same with the sides exchanged."""
        sides = (tuple(pairing.turned() for pairing in side) for side in (self.by_right, self.by_left))
        return Case(self.pairing.turned(), *sides)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The mean difference of two sides over all cases, by seed; positive if the left side is better."""

    cases: tuple[Case, ...]
    grain: float  # the smallest step of a seed's value
    total: float = 1.0  # the weights of all cases together: 2 where the sum of two cases is meant
    is_fixed: bool = False  # whether the measure does not depend on training, so that equal values prove equality

    @cached_property
    def rows(self) -> Pairing:
        return stacked([case.pairing for case in self.cases])

    @property
    def ranked(self) -> Floats:
        """The differences of the seeds that all cases have; divergences first."""
        means: Floats = self.total * self.rows.ranked.mean(axis=0)
        return means[np.isfinite(means)]

    @property
    def finished(self) -> Floats:
        """The differences of the seeds on which all trials finished."""
        means: Floats = self.total * self.rows.differences.mean(axis=0)
        return means[~self.rows.both_diverged.any(axis=0)]

    @property
    def direction(self) -> float:
        """Positive if the left side is better, divergences first."""
        return float(self.ranked.sum())

    @property
    def candidates(self) -> int:
        """The number of arms among which an arm of the left side was chosen; 1 if it was not."""
        return max(len(case.by_left) for case in self.cases)

    @property
    def is_same_training(self) -> bool:
        """Whether both sides are the same by construction. Equal results of different weights are not enough."""
        return self._are_same(self.rows)

    @property
    def is_identical(self) -> bool:
        """The same, whichever candidates are chosen."""
        return self._are_same(stacked([each for case in self.cases for each in (*case.by_left, *case.by_right)]))

    def _are_same(self, rows: Pairing) -> bool:
        known = np.isfinite(rows.ranked)
        same = (rows.ranked == 0) & (rows.same_training | self.is_fixed)
        return bool(known.any() and same[known].all())

    @property
    def p(self) -> float:
        """Two-sided p that both sides are equal, where nothing was chosen."""
        return stats.sign_flip_p(self.ranked)

    def turned(self) -> Comparison:
        """The same with the sides exchanged."""
        return replace(self, cases=tuple(case.turned() for case in self.cases))

    def p_after_choice(self, margin: float = 0.0) -> float:
        """Two-sided p that the left side is better by the margin, where the test repeats the choice of its arms.

        It uses the seeds that every candidate has.
        """
        numbers = [number for number, case in enumerate(self.cases) for _ in case.by_left]
        every = stacked([candidate for case in self.cases for candidate in case.by_left])
        was_chosen = np.array([len(self.cases[number].by_left) > 1 for number in numbers])[:, None]
        if self.candidates == 1:
            return stats.sign_flip_p(self.ranked - margin)
        criteria = np.where(was_chosen, stats.worst_rank(every.criteria, every.won, every.lost), 0.0)
        whole = np.isfinite(every.ranked).all(axis=0) & np.isfinite(criteria).all(axis=0)
        gains = every.ranked[:, whole] - margin / self.total
        return stats.sign_flip_p_after_choice(gains, criteria[:, whole], numbers)

    def p_better(self, margin: float = 0.0) -> float:
        """Two-sided p that the left side is better by more than the margin, or worse than that if it seems so."""
        beyond = self.ranked - margin
        if beyond.sum() > 0:
            return max(stats.sign_flip_p(beyond), self.p_after_choice(margin))
        p = max(stats.sign_flip_p(beyond), self.turned().p_after_choice(-margin))
        if margin <= 0:
            return p
        # Ties are no proof of less than the margin: either steps are counted, or the left side is worse.
        mean = stats.estimate(self.finished).mean
        worse = self.p_better() if self.direction < 0 else 1.0
        return max(p, min(worse, stats.few_steps_p(mean, margin, self.grain, self.ranked.size, self.candidates)))

    def effects(self, margin: float = 0.0) -> tuple[float, float]:
        """The difference from the margin in standard deviations, as observed and at the nearer end of its interval."""
        beyond = self.finished - margin
        return stats.cohen_dz(beyond), stats.smallest_dz(beyond)

    def cost_of_choice(self, p_better: float, margin: float = 0.0) -> float:
        """The factor by which repeating the choice raised p, at most the number of possible choices.

        A number of seeds for a given power is computed with it, as if that many differences were tested.
        """
        beyond = self.ranked - margin
        side = self if beyond.sum() > 0 else self.turned()
        choices = math.prod(len(case.by_left) for case in side.cases)
        return float(np.clip(p_better / stats.sign_flip_p(beyond), 1, choices))

    def p_equal(self, margin: float) -> float:
        """p that the difference lies within the margin; 0 if both sides are identical, 1 if divergence decides."""
        if self.rows.decided_by_divergence:
            return 1.0
        if self.is_identical:
            return 0.0
        sides = self, self.turned()
        within = stats.equivalence_p(self.finished, margin, self.grain, max(side.candidates for side in sides))
        return max([within, *(side.p_after_choice(-margin) / 2 for side in sides if side.candidates > 1)])
