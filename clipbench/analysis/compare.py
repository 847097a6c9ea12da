"""Records in, report out: chooses thresholds, compares every strategy with the baseline, and judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from clipbench import stats
from clipbench.analysis import arms, claims, metric_choice, notes, pairing, search_result
from clipbench.analysis import verdicts as verdict
from clipbench.analysis.arm_choice import SettingArms, group_of
from clipbench.analysis.arms import Arm
from clipbench.analysis.pairing import Pairing
from clipbench.analysis.report_model import (
    ArmResult,
    Contrast,
    Report,
    ReportOptions,
    Setting,
    TargetEpochs,
    VerdictChange,
)
from clipbench.analysis.verdicts import Evidence
from clipbench.reporting import headline
from clipbench.stats import Floats


@dataclass(frozen=True)
class JudgedArms:
    """A group with what the seeds show of each of its arms."""

    group: SettingArms
    contrasts: Mapping[str, Contrast]
    verdicts: Mapping[str, str]
    chances: tuple[str, ...]  # arms that would be better, had their threshold not been chosen among many

    def verdict_of(self, arm: Arm) -> str:
        if arm is self.group.baseline:
            return verdict.BASELINE
        fallback = verdict.NO_BASELINE if self.group.baseline is None and arm in self.group.shown else ""
        return self.verdicts.get(arm.name, fallback)


def compare(frame: pd.DataFrame, options: ReportOptions | None = None, name: str = "") -> Report:
    """Compare every strategy with the baseline. `frame` holds the store's records, one row a trial."""
    options = options or ReportOptions()
    ours = _of_experiment(frame, options.planned)
    trained = ours[ours["status"].isin(("finished", "diverged"))] if len(ours) else ours
    metric_choice.check(trained, options)
    search = search_result.search_of(options.swept, frame, options.baseline)
    tuned = tuple(_tuned(trained, options)) if options.tuned and not search else ()
    settings = tuple(_settings(trained, options))
    found = search_result.as_found(trained, options)
    answered = claims.answer(found.drop(columns=search_result.open_columns(found, options)), options)
    missed = notes.of_tuning(settings) if options.tuned and not tuned and not search else ()
    said = (*notes.of_trials(frame, ours, options.planned, options.swept), *missed)
    return Report(name, (*tuned, *settings), said, answered, search)


def _settings(trained: pd.DataFrame, options: ReportOptions) -> Iterator[Setting]:
    """All arms on the same data, model, optimizer and training, but for what a search chose for each of them."""
    found = search_result.as_found(trained, options)
    for axes, part, over in arms.open_settings(found, search_result.open_columns(found, options), name_all=True):
        if len(part):
            yield search_result.with_edges(_setting(part, axes, options, over), options.swept)
    for axes, part, over in search_result.at_equal_rates(trained, options):
        yield replace(_setting(part, axes, options, over), equal=search_result.RATE)


def _tuned(trained: pd.DataFrame, options: ReportOptions) -> Iterator[Setting]:
    """Every strategy at its own best of what can be tuned, where validation data can choose it."""
    for axes, part, over in arms.tuned_settings(trained):
        if metric_choice.of_setting(part, options).criterion:
            yield _setting(part, axes, options, over)


def _of_experiment(frame: pd.DataFrame, planned: Mapping[str, str] | None) -> pd.DataFrame:
    return frame if planned is None or frame.empty else frame[frame["id"].isin(list(planned))]


def _setting(
    frame: pd.DataFrame, axes: Mapping[str, str], options: ReportOptions, tuned: tuple[str, ...] = ()
) -> Setting:
    judged = _judged(frame, options)
    measured = judged.group.metric
    rows = [_row(arm, judged) for arm in judged.group.arms]
    setting = Setting(
        axes=axes,
        words=headline.where(frame, axes, tuned),
        metric=measured,
        baseline=next((row.arm for row in rows if row.verdict == verdict.BASELINE), None),
        margin=options.margin,
        seeds=int(frame["seed"].nunique()),
        rows=tuple(sorted(rows, key=_by_strategy)),
        main=tuple(sorted((row for row in rows if row.shown), key=_by_value(measured.sign))),
        headline="",
        notes=(),
        otherwise=_otherwise(judged, frame, options),
        target=_target(frame),
        tuned=tuned,
        searched=options.swept is not None,
    )
    return replace(
        setting,
        headline=headline.sentence(setting),
        notes=notes.of_comparison(setting, frame, options.baseline, judged.chances),
    )


def _judged(frame: pd.DataFrame, options: ReportOptions) -> JudgedArms:
    group = group_of(frame, options)
    evidence, contrasts = _evidence(group)
    verdicts = verdict.judge(evidence, sign=group.metric.sign, chosen=group.chosen, margin=options.margin)
    chances = tuple(each.arm.name for each in evidence if each.is_chance_of_choice)
    return JudgedArms(group, contrasts, verdicts, chances)


def _otherwise(judged: JudgedArms, frame: pd.DataFrame, options: ReportOptions) -> tuple[VerdictChange, ...] | None:
    """What the rule for diverged trials decides: the rows that would be judged otherwise without these trials."""
    finished = frame[frame["status"] != "diverged"]
    if len(finished) == len(frame) or judged.group.baseline is None:
        return None
    without = _judged(finished, options) if len(finished) else None
    return tuple(
        VerdictChange(arm.name, judged.verdict_of(arm), *other)
        for arm in judged.group.shown
        if verdict.differ((other := _verdict_without(arm, judged, without))[1], judged.verdict_of(arm))
    )


def _verdict_without(arm: Arm, judged: JudgedArms, without: JudgedArms | None) -> tuple[str, str]:
    """The arm that would stand for its strategy, and its verdict."""
    if without is None or without.group.baseline is None:
        return "", verdict.NO_BASELINE
    if arm is judged.group.baseline:
        return "", verdict.BASELINE
    shown = [each for each in without.group.shown if each is not without.group.baseline]
    same = [each for each in shown if each.strategy == arm.strategy and (judged.group.chosen or each.name == arm.name)]
    if not same:
        return "", verdict.NOTHING_LEFT
    return same[0].name, without.verdict_of(same[0])


def _evidence(group: SettingArms) -> tuple[list[Evidence], dict[str, Contrast]]:
    """The family tested against the baseline; arms outside of it get their differences only."""
    contrasts = {arm.name: _contrast(arm, group) for arm in group.arms if arm.name in group.pairings}
    family = group.family
    p_values = [pairing.p_value(group.pairings[arm.name]) for arm in family]
    corrected = stats.holm(p_values).tolist()
    after_choice = stats.holm([_p_after_choice(arm, group) for arm in family]).tolist()
    of_baseline = stats.holm([_p_after_choice_of_baseline(arm, group) for arm in family]).tolist()
    evidence = []
    for arm, p, p_holm, p_choice, p_baseline in zip(
        family, p_values, corrected, after_choice, of_baseline, strict=True
    ):
        tested = replace(contrasts[arm.name], p=p, p_holm=p_holm, p_choice=p_choice, p_baseline=p_baseline)
        contrasts[arm.name] = tested
        evidence.append(Evidence(arm, group.pairings[arm.name], p_holm, p_choice, p_baseline))
    return evidence, contrasts


def _contrast(arm: Arm, group: SettingArms) -> Contrast:
    assert group.baseline is not None  # or there were no pairings
    found = pairing.beside(pairing.contrast(group.pairings[arm.name]), arm, group.baseline, group.epochs)
    candidates = _candidates(arm, group)
    is_choice = group.chosen and arm in group.shown and len(candidates) > 1
    return replace(found, nested=pairing.nested(candidates)) if is_choice else found


def _candidates(arm: Arm, group: SettingArms) -> list[Pairing]:
    """The thresholds among which the arm's was chosen."""
    return [group.pairings[each.name] for each in group.siblings(arm) if each.name in group.pairings]


def _p_after_choice(arm: Arm, group: SettingArms) -> float:
    chosen = group.pairings[arm.name]
    return pairing.p_after_choice(chosen, _candidates(arm, group)) if group.chosen else pairing.p_value(chosen)


def _p_after_choice_of_baseline(arm: Arm, group: SettingArms) -> float:
    """The other way round: the best of several baselines looks better than the arm by luck."""
    if len(group.baselines) < 2 or group.baseline is None:
        return pairing.p_value(group.pairings[arm.name])
    candidates = {each.name: pairing.pair(each, arm, group.metric.sign) for each in group.baselines if each is not arm}
    return pairing.p_after_choice(candidates[group.baseline.name], list(candidates.values()))


def _row(arm: Arm, judged: JudgedArms) -> ArmResult:
    group = judged.group
    is_shown = arm in group.shown
    return ArmResult(
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
        reach=_reach(arm, group.epochs) if group.has_target else None,
        contrast=judged.contrasts.get(arm.name),
        shown=is_shown,
        verdict=judged.verdict_of(arm),
        flags=verdict.flags(arm, group.siblings(arm), is_choice=is_shown and group.chosen),
        ids=arm.ids,
        tuning=arm.tuning,
    )


def _reach(arm: Arm, epochs: float) -> TargetEpochs:
    reached_at = arm.measures["epochs_to_target"][arm.present]
    reached = np.isfinite(reached_at)
    median = float(np.median(np.where(reached, reached_at, np.inf))) if reached_at.size else float("nan")
    restricted = stats.restricted_mean(reached_at, epochs) if reached_at.size else float("nan")
    return TargetEpochs(median, int(reached.sum()), int(reached_at.size), restricted)


def _target(frame: pd.DataFrame) -> str:
    """`val/accuracy 0.95`, of the trials of a setting."""
    known = [text for text in frame.get("train.target", pd.Series(dtype=object)).dropna() if isinstance(text, str)]
    try:
        measure, value = json.loads(known[0]) if known else ("", "")
    except (ValueError, TypeError):
        return ""
    return f"{measure} {value}".strip()


def _middle(values: Floats, middle: Callable[[Floats], np.floating[Any]]) -> float:
    values = values[np.isfinite(values)]
    return float(middle(values)) if values.size else float("nan")


def _by_strategy(row: ArmResult) -> tuple[bool, str, float, str]:
    threshold = np.inf if row.threshold is None else row.threshold
    return row.verdict != verdict.BASELINE, row.strategy, threshold, row.arm


def _by_value(sign: int) -> Callable[[ArmResult], tuple[bool, float, float, str]]:
    """The baseline, then as thresholds are ranked: fewer divergences first, then the better mean."""

    def key(row: ArmResult) -> tuple[bool, float, float, str]:
        worse = np.inf if np.isnan(row.value.mean) else -sign * row.value.mean
        return row.verdict != verdict.BASELINE, row.diverged / max(row.trials, 1), worse, row.arm

    return key
