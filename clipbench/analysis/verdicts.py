"""What is concluded about each arm: its verdict beside the baseline, and its flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clipbench import stats
from clipbench.analysis.arms import Arm
from clipbench.analysis.pairing import Pairing, p_value, pair
from clipbench.stats import LEVEL, Floats

BASELINE = "baseline"
BEST = "best"
TIED = "tied with best"
BETTER = "better"
WORSE = "worse"
NO_EFFECT = "no effect"
UNDERPOWERED = "underpowered"
OPEN = "no difference shown"
NO_BASELINE = "no baseline"
NOTHING_LEFT = "nothing left to compare"

UNCLIPPED = "none"  # never fires, as it should
MOSTLY = 0.95
# With two thresholds each is an edge, which says nothing.
EDGE_POINTS = 3


@dataclass(frozen=True)
class Evidence:
    """An arm of the family and how it stands beside the baseline."""

    arm: Arm
    pairing: Pairing
    p_holm: float
    p_choice: float  # with the choice of threshold repeated, after Holm
    p_baseline: float  # with the choice among the baseline's repeated, after Holm

    @property
    def is_better(self) -> bool:
        return max(self.p_holm, self.p_choice) < LEVEL and self.pairing.direction > 0

    @property
    def is_worse(self) -> bool:
        return max(self.p_holm, self.p_baseline) < LEVEL and self.pairing.direction < 0

    @property
    def is_chance_of_choice(self) -> bool:
        """It would be better or worse, had nothing been the best of many."""
        repeated = self.p_choice if self.pairing.direction > 0 else self.p_baseline
        return self.p_holm < LEVEL <= repeated


def judge(family: Sequence[Evidence], *, sign: int, chosen: bool, margin: float | None) -> dict[str, str]:
    """The verdict of every arm of the family. None is best where nothing was chosen on validation data."""
    verdicts = {each.arm.name: _beside_baseline(each, len(family), margin) for each in family}
    better = [each for each in family if verdicts[each.arm.name] == BETTER]
    if chosen and better:
        verdicts.update(_best_among([each.arm for each in better], sign))
    return verdicts


def _beside_baseline(evidence: Evidence, comparisons: int, margin: float | None) -> str:
    if _is_equivalent(evidence.pairing, margin):
        return NO_EFFECT
    if evidence.is_better:
        return BETTER
    if evidence.is_worse:
        return WORSE
    if stats.smallest_p(evidence.pairing.pairs, comparisons) >= LEVEL:
        return UNDERPOWERED
    return OPEN


def _is_equivalent(pairing: Pairing, margin: float | None) -> bool:
    if margin is None or pairing.decided_by_divergence:
        return False
    return bool(stats.equivalence_p(pairing.finished, margin) < LEVEL)


def _best_among(better: Sequence[Arm], sign: int) -> Mapping[str, str]:
    """The best is chosen on validation, like its threshold; the others tie unless shown to be worse."""
    best, *others = sorted(better, key=lambda arm: arm.rank)
    pairings = [pair(other, best, sign) for other in others]
    p_values = stats.holm([p_value(pairing) for pairing in pairings])
    worse = [p < LEVEL and pairing.direction < 0 for p, pairing in zip(p_values, pairings, strict=True)]
    names = [other.name for other in others]
    return {best.name: BEST} | {name: BETTER if is_worse else TIED for name, is_worse in zip(names, worse, strict=True)}


def differ(one: str, other: str) -> bool:
    """Whether two verdicts say different things: of what is not shown, it does not matter why."""
    return one != other and not {one, other} <= {OPEN, UNDERPOWERED}


def flags(arm: Arm, siblings: Sequence[Arm], *, is_choice: bool) -> tuple[str, ...]:
    """What a reader must know before using the arm. Siblings are all thresholds of its strategy."""
    fired, left = (_known(arm.measures[name]) for name in ("clip/fired_share", "clip/cosine"))
    never = bool(fired.size and (fired == 0).all())
    found = []
    if never and arm.strategy != UNCLIPPED:
        found.append("never fired")
    if fired.size and fired.mean() > MOSTLY and arm.threshold is not None:
        # Of a step that is refused, no direction is left.
        is_refused = bool(left.size and left.mean() < 1 - MOSTLY)
        found.append("refuses > 95 % of steps" if is_refused else "fires on > 95 % of steps")
    if is_choice and not never and _is_edge(arm.threshold, [each.threshold for each in siblings]):
        found.append("best at the edge of the range")
    for name, value in arm.place if is_choice else ():
        if _is_edge(_number(value), [_number(dict(each.place)[name]) for each in siblings]):
            found.append(f"best {name} at the edge of its range")
    if arm.diverged.any():
        found.append(f"diverged on {arm.diverged.sum()} of {arm.present.sum()}")
    return tuple(found)


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _is_edge(value: float | None, tried: Sequence[float | None]) -> bool:
    known = sorted({each for each in tried if each is not None})
    return len(known) >= EDGE_POINTS and value in (known[0], known[-1])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
