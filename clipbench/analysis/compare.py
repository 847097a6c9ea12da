"""Build the report of the records: choose thresholds, compare every strategy with the baseline, and judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from clipbench import stats
from clipbench.analysis import arms, claims, metric_choice, pairing_check, search_result, training_checks
from clipbench.analysis import verdicts as verdict
from clipbench.analysis.arm_choice import SettingArms
from clipbench.analysis.arms import Arm
from clipbench.analysis.contrasts import contrasts_of, with_bootstraps, with_overall_p
from clipbench.analysis.report_model import (
    ArmResult,
    Contrast,
    EarlyStops,
    LeftOut,
    Report,
    ReportOptions,
    Setting,
    TargetEpochs,
    VerdictChange,
)
from clipbench.config.sections import is_tunable
from clipbench.stats import Floats


def compare(frame: pd.DataFrame, options: ReportOptions | None = None, name: str = "") -> Report:
    """Compare every strategy with the baseline. `frame` holds the store's records, one row a trial."""
    options = options or ReportOptions()
    ours = _of_experiment(frame, options.planned)
    trained = ours[ours["status"].isin(("finished", "diverged"))] if len(ours) else ours
    metric_choice.check(trained, options)
    search = search_result.search_of(options.swept, frame, options.baseline)
    tuned = tuple(_tuned(trained, options)) if options.tuned and not search else ()
    settings = with_overall_p([*tuned, *_settings(trained, options)])
    found = search_result.as_found(trained, options)
    answered = claims.answer(found.drop(columns=search_result.open_columns(found, options)), options)
    return Report(
        name,
        settings=settings,
        claims=answered,
        search=search,
        left_out=_left_out(frame, ours, options),
        is_empty=ours.empty,
        is_untuned=options.tuned and not tuned and not search,
    )


def _settings(trained: pd.DataFrame, options: ReportOptions) -> Iterator[Setting]:
    """All arms on the same data, model, optimizer and training, except for what a search chose for each arm."""
    found = search_result.as_found(trained, options)
    for axes, part, over in arms.open_settings(found, search_result.open_columns(found, options), name_all=True):
        if len(part):
            yield search_result.with_edges(_setting(part, axes, options, over), options.swept)
    for axes, part, over in search_result.at_equal_rates(trained, options):
        yield replace(_setting(part, axes, options, over), equal=search_result.RATE)


def _tuned(trained: pd.DataFrame, options: ReportOptions) -> Iterator[Setting]:
    """Every strategy at its best tunable options, if validation data can choose them."""
    of_script = "train.script" in trained and bool(trained["train.script"].notna().all())
    tunable = [column for column in arms.setting_columns(trained) if is_tunable(column, of_script)]
    for axes, part, over in arms.open_settings(trained, tunable):
        if over and metric_choice.of_setting(part, options).criterion:
            yield _setting(part, axes, options, over)


def _of_experiment(frame: pd.DataFrame, planned: Mapping[str, str] | None) -> pd.DataFrame:
    return frame if planned is None or frame.empty else frame[frame["id"].isin(list(planned))]


def _left_out(stored: pd.DataFrame, ours: pd.DataFrame, options: ReportOptions) -> LeftOut:
    """The trials that are in no table; the trials of a search are in its own tables."""
    swept = options.swept
    others = stored[~stored["id"].isin(swept.ids)] if swept and len(stored) else stored
    if ours.empty:
        return LeftOut(others=len(others))
    done = set(ours["id"])
    missing = tuple(words for id_, words in (options.planned or {}).items() if id_ not in done)
    failed, pruned = (ours[ours["status"] == status] for status in ("failed", "pruned"))
    return LeftOut(_by_error(failed), tuple(_trial_names(pruned)), missing, max(0, len(others) - len(ours)))


def _by_error(failed: pd.DataFrame) -> Mapping[str, tuple[str, ...]]:
    """The trials of each error, by the last line of what it says."""
    texts = failed["error"] if "error" in failed else pd.Series("", failed.index)
    lines = texts.map(lambda text: _last_line(text) if isinstance(text, str) else "")
    return {str(line): tuple(_trial_names(rows)) for line, rows in failed.groupby(lines)}


def _trial_names(rows: pd.DataFrame) -> Iterator[str]:
    """`norm@1.0 seed 3`."""
    return (f"{arm} seed {seed}" for arm, seed in zip(rows["arm"], rows["seed"], strict=True))


def _last_line(text: str) -> str:
    line = "".join(text.strip().splitlines()[-1:])
    return line if len(line) <= 200 else f"{line[:199]}…"


def _early_stops(frame: pd.DataFrame) -> EarlyStops | None:
    stopped = frame["stopped_epoch"].dropna() if "stopped_epoch" in frame else frame.iloc[:0, 0]
    return EarlyStops(len(stopped), len(frame), int(stopped.min()), int(stopped.max())) if len(stopped) else None


def _setting(
    frame: pd.DataFrame, axes: Mapping[str, str], options: ReportOptions, tuned: tuple[str, ...] = ()
) -> Setting:
    group = SettingArms(frame, options)
    contrasts = contrasts_of(group)
    verdicts = verdict.judge(group, contrasts)
    contrasts = with_bootstraps(contrasts, group)
    rows = [_row(arm, group, contrasts.get(arm.name), verdicts.get(arm.name, "")) for arm in group.arms]
    return Setting(
        axes=axes,
        words=arms.setting_name(frame, axes, tuned),
        metric=group.metric,
        baseline=group.baseline.name if group.baseline else None,
        margin=options.margin,
        seeds=int(frame["seed"].nunique()),
        rows=tuple(sorted(rows, key=_by_strategy)),
        main=tuple(sorted((row for row in rows if row.shown), key=_by_value(group.metric.sign))),
        otherwise=_otherwise(group, verdicts),
        target=_target(frame),
        tuned=tuned,
        searched=options.swept is not None,
        wanted_baseline=options.baseline,
        early_stops=_early_stops(frame),
        unpaired=pairing_check.unpaired(frame),
        averages_folds=bool(frame.duplicated(["arm", "seed"]).any()),
        constant=training_checks.constant_value(frame, group.metric.name, options),
        example_steps={
            name: metric_choice.example_step(frame, name, options.examples)
            for name in (group.metric.name, group.metric.criterion)
            if name
        },
    )


def _otherwise(group: SettingArms, verdicts: Mapping[str, str]) -> tuple[VerdictChange, ...] | None:
    """The arms whose verdict would be another without the diverged trials; None if nothing diverged."""
    if group.baseline is None or not any(arm.diverged.any() for arm in group.arms):
        return None
    without = replace(group, leaves_out_diverged=True)
    changed = verdict.judge(without, contrasts_of(without))
    others = {arm.name: _shown_without(arm, group, without) for arm in group.shown}
    return tuple(
        VerdictChange(name, verdicts[name], shown, changed.get(shown, fallback))
        for name, (shown, fallback) in others.items()
        if verdict.differ(changed.get(shown, fallback), verdicts[name])
    )


def _shown_without(arm: Arm, group: SettingArms, without: SettingArms) -> tuple[str, str]:
    """The arm that would be shown for the strategy of an arm; if there is none, the verdict that says why."""
    if without.baseline is None:
        return "", verdict.NO_BASELINE
    if arm is group.baseline:
        return "", verdict.BASELINE
    same = [
        each for each in without.family if each.strategy == arm.strategy and (group.chosen or each.name == arm.name)
    ]
    return (same[0].name, "") if same else ("", verdict.NOTHING_LEFT)


def _row(arm: Arm, group: SettingArms, contrast: Contrast | None, judged: str) -> ArmResult:
    is_shown = arm in group.shown
    value, trials = stats.estimate(arm.value), group.frame[group.frame["arm"] == arm.name]
    warnings = verdict.flags(arm, group.by_strategy[arm.strategy], is_choice=is_shown and group.chosen)
    return ArmResult(
        arm=arm.name,
        strategy=arm.strategy,
        threshold=arm.threshold,
        value=value,
        criterion=group.metric.criterion_sign * _middle(arm.criterion, np.mean),
        diverged=int(arm.diverged.sum()),
        nonfinite=int(arm.nonfinite.sum()),
        is_candidate=arm in group.candidates[arm.strategy],
        trials=int(arm.present.sum()),
        fired_share=_middle(arm.measures["clip/fired_share"], np.mean),
        fraction=_middle(arm.measures["clip/fraction"], np.mean),
        grad_norm=_middle(arm.measures["grad_norm/pre_p50"], np.median),
        step_us=_middle(arm.measures["step_us"], np.median),
        reach=None if np.isnan(group.epochs) else _reach(arm, group.epochs),
        contrast=contrast,
        shown=is_shown,
        verdict=judged,
        flags=(*training_checks.flags(trials, value, group.metric, group.options), *warnings),
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
    """The target of the trials of a setting: `val/accuracy 0.95`."""
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
    """The sort key: the baseline, then fewer divergences first, then the better mean."""

    def key(row: ArmResult) -> tuple[bool, float, float, str]:
        worse = np.inf if np.isnan(row.value.mean) else -sign * row.value.mean
        return row.verdict != verdict.BASELINE, row.diverged / max(row.trials, 1), worse, row.arm

    return key
