"""The verdict of each arm against the baseline, and its flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clipbench import stats
from clipbench.analysis.arms import Arm
from clipbench.analysis.pairing import Pairing, p_value, pair
from clipbench.plugins.registry import UNCLIPPED
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

NEVER_FIRED = "never fired"
MOSTLY_FIRES = "fires on > 95 % of steps"
MOSTLY_REFUSES = "refuses > 95 % of steps"
AT_EDGE = "best at the edge of the range"

MOSTLY = 0.95
# Of two thresholds each is at an edge, so the flag would be meaningless.
EDGE_POINTS = 3


@dataclass(frozen=True)
class Evidence:
    """A tested arm with its pairing and p-values against the baseline."""

    arm: Arm
    pairing: Pairing
    p_holm: float
    p_choice: float  # the test repeats the choice of threshold; after Holm
    p_baseline: float  # the test repeats the choice of the baseline; after Holm

    @property
    def is_better(self) -> bool:
        return max(self.p_holm, self.p_choice) < LEVEL and self.pairing.direction > 0

    @property
    def is_worse(self) -> bool:
        return max(self.p_holm, self.p_baseline) < LEVEL and self.pairing.direction < 0

    @property
    def is_decided_by_choice(self) -> bool:
        """Whether it is significant only until the test repeats the choice."""
        repeated = self.p_choice if self.pairing.direction > 0 else self.p_baseline
        return self.p_holm < LEVEL <= repeated


def judge(family: Sequence[Evidence], *, sign: int, chosen: bool, margin: float | None) -> dict[str, str]:
    """The verdict of every tested arm. No arm is best if nothing was chosen on validation data."""
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
    """The best is chosen on validation data, like its threshold; the others tie unless significantly worse."""
    best, *others = sorted(better, key=lambda arm: arm.rank)
    pairings = [pair(other, best, sign) for other in others]
    p_values = stats.holm([p_value(pairing) for pairing in pairings])
    worse = [p < LEVEL and pairing.direction < 0 for p, pairing in zip(p_values, pairings, strict=True)]
    names = [other.name for other in others]
    return {best.name: BEST} | {name: BETTER if is_worse else TIED for name, is_worse in zip(names, worse, strict=True)}


def differ(one: str, other: str) -> bool:
    """Whether two verdicts differ; `underpowered` and `no difference shown` count as the same."""
    return one != other and not {one, other} <= {OPEN, UNDERPOWERED}


def flags(arm: Arm, siblings: Sequence[Arm], *, is_choice: bool) -> tuple[str, ...]:
    """Warnings about an arm. Siblings are all thresholds of its strategy."""
    fired, left = (_known(arm.measures[name]) for name in ("clip/fired_share", "clip/cosine"))
    never = bool(fired.size and (fired == 0).all())
    found = []
    if never and arm.strategy != UNCLIPPED:
        found.append(NEVER_FIRED)
    if fired.size and fired.mean() > MOSTLY and arm.threshold is not None:
        # A refused step leaves an update of zero, whose cosine is 0.
        is_refused = bool(left.size and left.mean() < 1 - MOSTLY)
        found.append(MOSTLY_REFUSES if is_refused else MOSTLY_FIRES)
    if is_choice and not never and _is_edge(arm.threshold, [each.threshold for each in siblings]):
        found.append(AT_EDGE)
    for name, value in arm.tuned_values if is_choice else ():
        if _is_edge(_number(value), [_number(dict(each.tuned_values)[name]) for each in siblings]):
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
