"""The comparison of every arm of a setting with the baseline: effects, tests, corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clipbench import stats
from clipbench.analysis.arm_choice import SettingArms
from clipbench.analysis.arms import Arm
from clipbench.analysis.pairing import Pairing
from clipbench.analysis.report_model import ArmResult, Contrast, Setting


def contrasts_of(group: SettingArms) -> dict[str, Contrast]:
    """Compare every arm with the baseline, and test those of the main table."""
    contrasts = {arm.name: _contrast(arm, group) for arm in group.arms if arm.name in group.pairings}
    tested = group.comparisons
    p = [each.p for each in tested.values()]
    p_better = [each.p_better() for each in tested.values()]
    columns = zip(p, p_better, stats.holm(p).tolist(), stats.holm(p_better).tolist(), strict=True)
    for (name, comparison), (alone, better, unchosen, corrected) in zip(tested.items(), columns, strict=True):
        cost = comparison.cost_of_choice(better)
        least = stats.more_seeds(comparison.ranked.size, corrected)
        seeds, seeds_low = (max(least, stats.seeds_for_power(dz, len(tested), cost)) for dz in comparison.effects())
        contrasts[name] = replace(
            contrasts[name],
            p=alone,
            p_choice=better,
            p_holm=corrected,
            p_unchosen=unchosen,
            seeds_needed=seeds,
            seeds_needed_low=seeds_low,
        )
    return contrasts


def with_overall_p(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """Add the p that is corrected for all rows of all tables, if there are several tables."""
    if len(settings) < 2:
        return tuple(settings)
    raw = [row.contrast.p_choice if row.contrast else np.nan for setting in settings for row in setting.rows]
    corrected = iter(stats.holm(raw).tolist())
    found = []
    for setting in settings:
        p = {row.arm: next(corrected) for row in setting.rows}
        rows, main = (tuple(_with_p(row, p[row.arm]) for row in part) for part in (setting.rows, setting.main))
        found.append(replace(setting, rows=rows, main=main))
    return tuple(found)


def _with_p(row: ArmResult, p_overall: float) -> ArmResult:
    return replace(row, contrast=replace(row.contrast, p_overall=p_overall)) if row.contrast else row


def with_bootstraps(contrasts: dict[str, Contrast], group: SettingArms) -> dict[str, Contrast]:
    """Add the bootstrap intervals. No verdict depends on them, and they take longer than everything else."""
    intervals = stats.bootstrap([group.pairings[name].finished for name in contrasts])
    pairs = zip(contrasts.items(), intervals, strict=True)
    return {name: replace(contrast, bootstrap=interval) for (name, contrast), interval in pairs}


def _contrast(arm: Arm, group: SettingArms) -> Contrast:
    assert group.baseline is not None  # or there were no pairings
    found, sides = group.pairings[arm.name], (arm, group.baseline)
    counts = (int(mask.sum()) for side in sides for mask in (side.diverged, side.present))
    times, other_times = (side.measures["epochs_to_target"][side.present] for side in sides)
    candidates = _candidates(arm, group)
    is_choice = group.chosen and arm in group.shown and len(candidates) > 1
    return Contrast(
        difference=stats.estimate(found.finished),
        dz=stats.cohen_dz(found.finished),
        rank_biserial=stats.rank_biserial(found.ranked),
        score=stats.wins_ties_losses(found.ranked),
        pairs=found.pairs,
        p_wilcoxon=stats.wilcoxon_p(found.ranked),
        p_diverged=stats.fisher_p(*counts),
        p_reach=np.nan if np.isnan(group.epochs) else stats.log_rank_p(times, other_times, group.epochs),
        nested=_nested(candidates) if is_choice else np.nan,
    )


def _nested(candidates: Sequence[Pairing]) -> float:
    """The mean difference if the other seeds choose the threshold of each seed, among those that never diverged."""
    outcomes = np.array([candidate.differences for candidate in candidates])
    criteria = np.array([candidate.criteria for candidate in candidates])
    seeds = np.isfinite(outcomes).any(axis=0) & np.isfinite(criteria).any(axis=0)
    whole = np.isfinite(outcomes[:, seeds]).all(axis=1) & np.isfinite(criteria[:, seeds]).all(axis=1)
    if whole.sum() < 2 or seeds.sum() < 2:
        return np.nan
    return float(stats.nested(outcomes[whole][:, seeds], criteria[whole][:, seeds]).mean())


def _candidates(arm: Arm, group: SettingArms) -> list[Pairing]:
    """The thresholds among which that of the arm was chosen."""
    return [group.pairings[each.name] for each in group.candidates[arm.strategy] if each.name in group.pairings]
