"""The verdict of each arm against the baseline, and its flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clipbench import stats
from clipbench.analysis.arm_choice import SettingArms
from clipbench.analysis.arms import Arm
from clipbench.analysis.report_model import Contrast
from clipbench.plugins.registry import UNCLIPPED
from clipbench.stats import LEVEL, Floats

BASELINE = "baseline"
BEST = "best"
FIRST = "best on validation"
TIED = "tied with best"
BETTER = "better"
WORSE = "worse"
NO_EFFECT = "no effect"
UNDERPOWERED = "underpowered"
NO_DIFFERENCE = "no difference shown"
NO_BASELINE = "no baseline"
NOTHING_LEFT = "no finished trials"

NEVER_CLIPPED = "never clipped"
MOSTLY_CLIPS = "clips > 95 % of steps"
MOSTLY_REFUSES = "refuses > 95 % of steps"
AT_EDGE = "best at the edge of the range"

MOSTLY = 0.95
# Of two thresholds each is at an edge, so the flag would be meaningless.
EDGE_POINTS = 3


def judge(group: SettingArms, contrasts: Mapping[str, Contrast]) -> dict[str, str]:
    """The verdicts by arm, of those in the main table. No arm is best if nothing was chosen on validation data."""
    if group.baseline is None:
        return {arm.name: NO_BASELINE for arm in group.shown}
    found = {arm.name: _beside_baseline(arm, group, contrasts[arm.name]) for arm in group.family}
    better = [arm for arm in group.family if found[arm.name] == BETTER]
    if group.chosen and len(better) > 1:
        found |= _best_among(better, group)
    return {group.baseline.name: BASELINE} | found


def _beside_baseline(arm: Arm, group: SettingArms, contrast: Contrast) -> str:
    comparison, margin = group.comparisons[arm.name], group.options.margin
    if comparison.is_same_training or (margin is not None and comparison.p_equal(margin) < LEVEL):
        return NO_EFFECT
    if comparison.direction and contrast.p_holm < LEVEL:
        return BETTER if comparison.direction > 0 else WORSE
    return UNDERPOWERED if stats.smallest_p(contrast.differing, len(group.family)) >= LEVEL else NO_DIFFERENCE


def _best_among(better: Sequence[Arm], group: SettingArms) -> dict[str, str]:
    """The first is chosen on validation data, like its threshold; it is the best if all others are shown to be worse.

    The test repeats the choice: the best of several equal arms looks better than the others by chance.
    """
    best, *others = sorted(better, key=lambda arm: arm.rank)
    comparisons = [group.compared(best, other, _rivals(other, better, group)) for other in others]
    p_values = stats.holm([comparison.p_better() for comparison in comparisons])
    beside = zip(others, comparisons, p_values, strict=True)
    found = {other.name: BETTER if p < LEVEL and each.direction > 0 else TIED for other, each, p in beside}
    return {best.name: FIRST if TIED in found.values() else BEST} | found


def _rivals(arm: Arm, better: Sequence[Arm], group: SettingArms) -> list[Arm]:
    """The candidates of the other strategies that are better than the baseline."""
    return [each for other in better if other is not arm for each in group.candidates[other.strategy]]


def differ(one: str, other: str) -> bool:
    """Whether two verdicts differ; `underpowered` and `no difference shown` count as the same."""
    return one != other and not {one, other} <= {NO_DIFFERENCE, UNDERPOWERED}


def flags(arm: Arm, siblings: Sequence[Arm], *, is_choice: bool) -> tuple[str, ...]:
    """Warnings about an arm. Siblings are all thresholds of its strategy."""
    fired, left = (_known(arm.measures[name]) for name in ("clip/fired_share", "clip/cosine"))
    never = bool(fired.size and (fired == 0).all())
    found = []
    if never and arm.strategy != UNCLIPPED:
        found.append(NEVER_CLIPPED)
    if fired.size and fired.mean() > MOSTLY and arm.threshold is not None:
        # A refused step leaves an update of zero, whose cosine is 0.
        is_refused = bool(left.size and left.mean() < 1 - MOSTLY)
        found.append(MOSTLY_REFUSES if is_refused else MOSTLY_CLIPS)
    ties = [each for each in siblings if each.rank == arm.rank]
    if is_choice and not never and _is_edge([each.threshold for each in ties], [each.threshold for each in siblings]):
        found.append(AT_EDGE)
    for name in dict(arm.tuned_values) if is_choice else ():
        chosen, tried = ([_number(dict(each.tuned_values)[name]) for each in known] for known in (ties, siblings))
        if _is_edge(chosen, tried):
            found.append(f"best {name} at the edge of its range")
    if arm.diverged.any():
        found.append(f"diverged on {arm.diverged.sum()} of {arm.present.sum()}")
    return tuple(found)


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _is_edge(best: Sequence[float | None], tried: Sequence[float | None]) -> bool:
    """Whether all of the equally good values are at one edge of those that were tried."""
    known = sorted({each for each in tried if each is not None})
    return len(known) >= EDGE_POINTS and set(best) in ({known[0]}, {known[-1]})


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
