"""An arm against the baseline, seed by seed: differences, tests, and what divergence does to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from clipbench import stats
from clipbench.analysis.arms import Arm, Mask
from clipbench.analysis.report_model import Contrast
from clipbench.stats import Floats


@dataclass(frozen=True, eq=False)
class Pairing:
    """An arm and another by seed, turned so that positive is better; NaN where there is no pair."""

    differences: Floats  # where both finished, or 0 where both diverged
    criteria: Floats  # the same of the validation measure
    won: Mask  # only the other diverged
    lost: Mask  # only the arm diverged
    both_diverged: Mask

    @property
    def finished(self) -> Floats:
        return self.differences[~self.both_diverged]

    @cached_property
    def ranked(self) -> Floats:
        """A pair that divergence decided counts more than all others together."""
        return stats.worst_rank(self.differences, self.won, self.lost)

    @property
    def pairs(self) -> int:
        return int(np.isfinite(self.ranked).sum())

    @property
    def direction(self) -> float:
        """Positive where the arm is better, divergences first."""
        return float(np.nansum(self.ranked))

    @property
    def decided_by_divergence(self) -> bool:
        return bool((self.won | self.lost).any())


def pair(arm: Arm, other: Arm, sign: int) -> Pairing:
    """Pair two arms by seed. Where both diverged they tie."""
    both = arm.present & other.present
    both_diverged = both & arm.diverged & other.diverged
    return Pairing(
        differences=np.where(both_diverged, 0.0, sign * (arm.value - other.value)),
        criteria=np.where(both_diverged, 0.0, arm.criterion - other.criterion),
        won=both & other.diverged & ~arm.diverged,
        lost=both & arm.diverged & ~other.diverged,
        both_diverged=both_diverged,
    )


def contrast(pairing: Pairing) -> Contrast:
    """What is said of a pairing before it is tested."""
    return Contrast(
        difference=stats.estimate(pairing.finished),
        dz=stats.cohen_dz(pairing.finished),
        rank_biserial=stats.rank_biserial(pairing.ranked),
        score=stats.score(pairing.ranked),
        pairs=pairing.pairs,
        bootstrap=stats.bootstrap(pairing.finished),
        p_wilcoxon=stats.wilcoxon_p(pairing.ranked),
    )


def p_value(pairing: Pairing) -> float:
    return stats.sign_flip_p(pairing.ranked)


def p_after_choice(chosen: Pairing, candidates: Sequence[Pairing]) -> float:
    """p of the chosen threshold with the choice among the strategy's thresholds repeated in the test.

    Over the seeds that every threshold has.
    """
    if len(candidates) == 1:
        return p_value(chosen)
    won = np.array([candidate.won for candidate in candidates])
    lost = np.array([candidate.lost for candidate in candidates])
    outcomes = stats.worst_rank([candidate.differences for candidate in candidates], won, lost)
    criteria = stats.worst_rank([candidate.criteria for candidate in candidates], won, lost)
    whole = np.isfinite(outcomes).all(axis=0) & np.isfinite(criteria).all(axis=0)
    return stats.sign_flip_p_after_choice(outcomes[:, whole], criteria[:, whole])


def beside(found: Contrast, arm: Arm, baseline: Arm, epochs: float) -> Contrast:
    """With what compares two arms as groups: how many diverged, and when a target was reached."""
    watched = (arm.measures["epochs_to_target"][arm.present], baseline.measures["epochs_to_target"][baseline.present])
    return replace(
        found,
        p_diverged=stats.fisher_p(
            int(arm.diverged.sum()), int(arm.present.sum()), int(baseline.diverged.sum()), int(baseline.present.sum())
        ),
        p_reach=stats.log_rank_p(*watched, epochs) if np.isfinite(epochs) else np.nan,
    )


def nested(candidates: Sequence[Pairing]) -> float:
    """The mean difference where the other seeds choose each seed's threshold, among those that never diverged."""
    outcomes = np.array([candidate.differences for candidate in candidates])
    criteria = np.array([candidate.criteria for candidate in candidates])
    seeds = np.isfinite(outcomes).any(axis=0) & np.isfinite(criteria).any(axis=0)
    whole = np.isfinite(outcomes[:, seeds]).all(axis=1) & np.isfinite(criteria[:, seeds]).all(axis=1)
    if whole.sum() < 2 or seeds.sum() < 2:
        return np.nan
    return float(stats.nested(outcomes[whole][:, seeds], criteria[whole][:, seeds]).mean())
