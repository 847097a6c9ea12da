"""Records in, report out: chooses thresholds, compares every strategy with the baseline, and judges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from clipbench import stats
from clipbench.report import arms, claims, contrast, headline, metric, notes, verdict
from clipbench.report.arms import Arm
from clipbench.report.contrast import Pairing
from clipbench.report.tables import Contrast, Metric, Options, Otherwise, Reach, Report, Row, Setting, label
from clipbench.report.verdict import Evidence
from clipbench.stats import Floats


@dataclass(frozen=True)
class Group:
    """The arms of one setting, which of them stand for their strategy, and the pairings with the baseline."""

    arms: tuple[Arm, ...]
    shown: tuple[Arm, ...]
    baseline: Arm | None
    pairings: Mapping[str, Pairing]
    metric: Metric
    epochs: float  # within which a target could be reached; NaN where there is none

    @property
    def has_target(self) -> bool:
        return bool(np.isfinite(self.epochs))

    @property
    def chosen(self) -> bool:
        return self.metric.criterion is not None

    @property
    def family(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.shown if arm.name in self.pairings)

    def siblings(self, arm: Arm) -> list[Arm]:
        return [each for each in self.arms if each.strategy == arm.strategy]


@dataclass(frozen=True)
class Judged:
    """A group with what the seeds show of each of its arms."""

    group: Group
    contrasts: Mapping[str, Contrast]
    verdicts: Mapping[str, str]
    chances: tuple[str, ...]  # arms that would be better, had their threshold not been chosen among many

    def verdict_of(self, arm: Arm) -> str:
        if arm is self.group.baseline:
            return verdict.BASELINE
        fallback = verdict.NO_BASELINE if self.group.baseline is None and arm in self.group.shown else ""
        return self.verdicts.get(arm.name, fallback)


def compare(frame: pd.DataFrame, options: Options | None = None, name: str = "") -> Report:
    """Compare every strategy with the baseline. `frame` holds the store's records, one row a trial."""
    options = options or Options()
    ours = _of_experiment(frame, options.planned)
    trained = ours[ours["status"].isin(("finished", "diverged"))] if len(ours) else ours
    metric.check(trained, options)
    settings = tuple(_setting(part, axes, options) for axes, part in arms.settings(trained) if len(part))
    answered = claims.answer(trained, options)
    return Report(name, settings, notes.of_trials(frame, ours, options.planned), answered)


def _of_experiment(frame: pd.DataFrame, planned: Mapping[str, str] | None) -> pd.DataFrame:
    return frame if planned is None or frame.empty else frame[frame["id"].isin(list(planned))]


def _setting(frame: pd.DataFrame, axes: Mapping[str, str], options: Options) -> Setting:
    judged = _judged(frame, options)
    measured = judged.group.metric
    rows = [_row(arm, judged) for arm in judged.group.arms]
    setting = Setting(
        axes=axes,
        words=headline.where(frame, axes),
        metric=measured,
        baseline=next((row.label for row in rows if row.verdict == verdict.BASELINE), None),
        margin=options.margin,
        seeds=int(frame["seed"].nunique()),
        rows=tuple(sorted(rows, key=_by_strategy)),
        main=tuple(sorted((row for row in rows if row.shown), key=_by_value(measured.sign))),
        headline="",
        notes=(),
        otherwise=_otherwise(judged, frame, options),
    )
    return replace(
        setting,
        headline=headline.sentence(setting),
        notes=notes.of_comparison(setting, frame, options.baseline, judged.chances),
    )


def _judged(frame: pd.DataFrame, options: Options) -> Judged:
    group = _group(frame, options)
    evidence, contrasts = _evidence(group)
    verdicts = verdict.judge(evidence, sign=group.metric.sign, chosen=group.chosen, margin=options.margin)
    chances = tuple(each.arm.name for each in evidence if each.is_chance_of_choice)
    return Judged(group, contrasts, verdicts, chances)


def _otherwise(judged: Judged, frame: pd.DataFrame, options: Options) -> tuple[Otherwise, ...] | None:
    """What the rule for diverged trials decides: the rows that would be judged otherwise without these trials."""
    finished = frame[frame["status"] != "diverged"]
    if len(finished) == len(frame) or judged.group.baseline is None:
        return None
    without = _judged(finished, options) if len(finished) else None
    return tuple(
        Otherwise(label(arm.strategy, arm.threshold, arm.name), judged.verdict_of(arm), *other)
        for arm in judged.group.shown
        if verdict.differ((other := _verdict_without(arm, judged, without))[1], judged.verdict_of(arm))
    )


def _verdict_without(arm: Arm, judged: Judged, without: Judged | None) -> tuple[str, str]:
    """The arm that would stand for its strategy, and its verdict."""
    if without is None or without.group.baseline is None:
        return "", verdict.NO_BASELINE
    if arm is judged.group.baseline:
        return "", verdict.BASELINE
    shown = [each for each in without.group.shown if each is not without.group.baseline]
    same = [each for each in shown if each.strategy == arm.strategy and (judged.group.chosen or each.name == arm.name)]
    if not same:
        return "", verdict.NOTHING_LEFT
    return label(same[0].strategy, same[0].threshold, same[0].name), without.verdict_of(same[0])


def _group(frame: pd.DataFrame, options: Options) -> Group:
    measured = metric.of_setting(frame, options)
    all_arms = arms.gather(frame, measured)
    shown = _choose(all_arms) if measured.criterion else tuple(all_arms)
    baseline = _baseline(all_arms, shown, options.baseline)
    pairings: dict[str, Pairing] = {}
    if baseline:
        others = [arm for arm in all_arms if arm is not baseline]
        pairings = {arm.name: contrast.pair(arm, baseline, measured.sign) for arm in others}
        shown = (baseline, *(arm for arm in shown if arm is not baseline))
    return Group(tuple(all_arms), shown, baseline, pairings, measured, _epochs(frame))


def _baseline(all_arms: Sequence[Arm], shown: Sequence[Arm], name: str) -> Arm | None:
    """The arm of that name, or else the strategy's; None where several thresholds could be meant."""
    named = [arm for arm in all_arms if arm.name == name] or [arm for arm in shown if arm.strategy == name]
    return named[0] if len(named) == 1 else None


def _epochs(frame: pd.DataFrame) -> float:
    """How long a target was watched for; NaN where there is none."""
    columns = [column for column in ("train.target", "epochs_to_target") if column in frame]
    if not columns or not frame[columns].notna().to_numpy().any():
        return np.nan
    known = [column for column in ("train.epochs", "epochs_to_target") if column in frame]
    return float(np.nanmax([pd.to_numeric(frame[column], errors="coerce").max() for column in known]))


def _choose(all_arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """The best threshold of each strategy; of equals the smallest, as the arms come sorted."""
    by_strategy: dict[str, list[Arm]] = {}
    for arm in all_arms:
        by_strategy.setdefault(arm.strategy, []).append(arm)
    return tuple(min(candidates, key=lambda arm: arm.rank) for candidates in by_strategy.values())


def _evidence(group: Group) -> tuple[list[Evidence], dict[str, Contrast]]:
    """The family tested against the baseline; arms outside of it get their differences only."""
    contrasts = {arm.name: _contrast(arm, group) for arm in group.arms if arm.name in group.pairings}
    family = group.family
    p_values = [contrast.p_value(group.pairings[arm.name]) for arm in family]
    corrected, after_choice = (
        stats.holm(p_values),
        stats.holm([_p_after_choice(arm, group) for arm in family]),
    )
    evidence = []
    for arm, p, p_holm, p_choice in zip(family, p_values, corrected, after_choice, strict=True):
        contrasts[arm.name] = replace(contrasts[arm.name], p=p, p_holm=float(p_holm), p_choice=float(p_choice))
        evidence.append(Evidence(arm, group.pairings[arm.name], float(p_holm), float(p_choice)))
    return evidence, contrasts


def _contrast(arm: Arm, group: Group) -> Contrast:
    assert group.baseline is not None  # or there were no pairings
    found = contrast.beside(contrast.contrast(group.pairings[arm.name]), arm, group.baseline, group.epochs)
    candidates = _candidates(arm, group)
    is_choice = group.chosen and arm in group.shown and len(candidates) > 1
    return replace(found, nested=contrast.nested(candidates)) if is_choice else found


def _candidates(arm: Arm, group: Group) -> list[Pairing]:
    """The thresholds among which the arm's was chosen."""
    return [group.pairings[each.name] for each in group.siblings(arm) if each.name in group.pairings]


def _p_after_choice(arm: Arm, group: Group) -> float:
    chosen = group.pairings[arm.name]
    return contrast.p_after_choice(chosen, _candidates(arm, group)) if group.chosen else contrast.p_value(chosen)


def _row(arm: Arm, judged: Judged) -> Row:
    group = judged.group
    is_shown = arm in group.shown
    return Row(
        arm=arm.name,
        strategy=arm.strategy,
        threshold=arm.threshold,
        value=stats.estimate(arm.value),
        criterion=group.metric.criterion_sign * _middle(arm.criterion, np.mean),
        diverged=int(arm.diverged.sum()),
        trials=int(arm.present.sum()),
        fired_share=_middle(arm.measures["clip/fired_share"], np.mean),
        fraction=_middle(arm.measures["clip/fraction"], np.mean),
        grad_norm=_middle(arm.measures["grad_norm/pre_p50"], np.median),
        step_us=_middle(arm.measures["step_us"], np.median),
        reach=_reach(arm) if group.has_target else None,
        contrast=judged.contrasts.get(arm.name),
        shown=is_shown,
        verdict=judged.verdict_of(arm),
        flags=verdict.flags(arm, group.siblings(arm), is_choice=is_shown and group.chosen),
        ids=arm.ids,
    )


def _reach(arm: Arm) -> Reach:
    epochs = arm.measures["epochs_to_target"][arm.present]
    reached = np.isfinite(epochs)
    median = float(np.median(np.where(reached, epochs, np.inf))) if epochs.size else float("nan")
    return Reach(median, int(reached.sum()), int(epochs.size))


def _middle(values: Floats, middle: Callable[[Floats], np.floating[Any]]) -> float:
    values = values[np.isfinite(values)]
    return float(middle(values)) if values.size else float("nan")


def _by_strategy(row: Row) -> tuple[bool, str, float, str]:
    threshold = np.inf if row.threshold is None else row.threshold
    return row.verdict != verdict.BASELINE, row.strategy, threshold, row.arm


def _by_value(sign: int) -> Callable[[Row], tuple[bool, float, float, str]]:
    """The baseline, then as thresholds are ranked: fewer divergences first, then the better mean."""

    def key(row: Row) -> tuple[bool, float, float, str]:
        worse = np.inf if np.isnan(row.value.mean) else -sign * row.value.mean
        return row.verdict != verdict.BASELINE, row.diverged / max(row.trials, 1), worse, row.arm

    return key
