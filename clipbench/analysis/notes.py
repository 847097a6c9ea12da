"""What must be said beside the tables, only where it applies: trials left out, rules that were needed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from clipbench import stats
from clipbench.analysis.report_model import ArmResult, Contrast, Setting, VerdictChange
from clipbench.reporting import numbers
from clipbench.stats import LEVEL, Estimate
from clipbench.store.sweep_file import SweepDocument


def of_trials(
    stored: pd.DataFrame, ours: pd.DataFrame, planned: Mapping[str, str] | None, swept: SweepDocument | None = None
) -> tuple[str, ...]:
    """Every trial that is not in the tables, counted and named; those of a search are in its own."""
    others = stored[~stored["id"].isin(swept.ids)] if swept and len(stored) else stored
    return (*_unfinished(ours, swept), *_missing(ours, planned), *_others(others, ours))


def of_comparison(setting: Setting, frame: pd.DataFrame, baseline: str, chances: Collection[str]) -> tuple[str, ...]:
    """What a reader must know to trust this table, only where it applies."""
    notes = [
        *_about_baseline(setting, baseline),
        *_about_choice(setting, chances),
        *_about_power(setting),
        *_about_interval(setting),
        *_about_divergence(setting),
        *_about_stopping(frame),
        *_about_pairs(setting, frame),
    ]
    return tuple(notes)


def _unfinished(ours: pd.DataFrame, swept: SweepDocument | None) -> Iterable[str]:
    if ours.empty:
        confirmed = "Nothing that the search found has been trained on fresh seeds yet: there is nothing to compare."
        yield confirmed if swept else "No trial of this experiment has been trained yet."
        return
    reasons = {
        "failed": "failed with an error; the next run trains them again",
        "pruned": "stopped early by the search",
    }
    for status, reason in reasons.items():
        rows = ours[ours["status"] == status]
        if len(rows):
            trials = numbers.count(len(rows), "trial")
            yield f"{trials} {reason}: {numbers.listing(_trial_names(rows))}."


def _missing(ours: pd.DataFrame, planned: Mapping[str, str] | None) -> Iterable[str]:
    done = set() if ours.empty else set(ours["id"])
    missing = [words for id_, words in (planned or {}).items() if id_ not in done]
    if missing and done:
        yield f"{numbers.count(len(missing), 'trial')} not trained yet: {numbers.listing(missing)}."


def _others(stored: pd.DataFrame, ours: pd.DataFrame) -> Iterable[str]:
    if len(stored) > len(ours):
        others = numbers.count(len(stored) - len(ours), "other trial")
        yield f"The folder holds {others} that this YAML does not ask for; not shown."


def _about_baseline(setting: Setting, baseline: str) -> Iterable[str]:
    if setting.baseline is None:
        several = any(row.strategy == baseline for row in setting.rows)
        why = "several thresholds could be meant; name one arm" if several else "it has no finished trial here"
        yield f"The baseline `{baseline}` cannot be used: {why}. Nothing is compared."


def _about_choice(setting: Setting, chances: Collection[str]) -> Iterable[str]:
    criterion = setting.metric.criterion
    if criterion is None and setting.searched:
        yield "No validation data: of those that are better, none is called best."
    elif criterion is None:
        yield "No validation data: no threshold is chosen, all are shown, and none is called best."
    elif criterion == setting.metric.name and setting.searched:
        yield f"{criterion} of other seeds but of the same examples chose what is compared here, and may flatter it."
    elif criterion == setting.metric.name:
        yield f"{criterion} both chose the thresholds and is reported, so it flatters them."
    for row in setting.main:
        if row.arm in chances and row.contrast:
            yield _chance(setting, row, row.contrast)


def _chance(setting: Setting, row: ArmResult, found: Contrast) -> str:
    """Significant until the choice is repeated: of the arm's own place, or of the baseline's."""
    is_better = found.p_choice >= LEVEL
    word, p = ("better", found.p_choice) if is_better else ("worse", found.p_baseline)
    whose = f"the choice of {setting.choice}" if is_better else f"that of {setting.baseline}"
    return (
        f"{row.arm} is not called {word}: its {numbers.p_clause(found.p_holm)} becomes "
        f"{numbers.p_value(p)} when the test repeats {whose}."
    )


def of_tuning(settings: Sequence[Setting]) -> tuple[str, ...]:
    """Why nothing was tuned though it was asked for."""
    if not settings:
        return ()
    if all(setting.metric.criterion is None for setting in settings):
        return ("Nothing is tuned (`report.tuned`): there is no validation data to choose by.",)
    return ("Nothing is tuned (`report.tuned`): the trials have no learning rate or other option to choose from.",)


def _about_power(setting: Setting) -> Iterable[str]:
    comparisons = sum(row.contrast is not None for row in setting.main)
    if not comparisons or stats.smallest_p(setting.seeds, comparisons) < LEVEL:
        return
    reachable = numbers.p_value(stats.smallest_p(setting.seeds, comparisons))
    yield (
        f"{numbers.count(setting.seeds, 'seed')} cannot show p < 0.05 after Holm over "
        f"{numbers.count(comparisons, 'comparison')} (smallest reachable: {reachable}); "
        f"use at least {stats.seeds_needed(comparisons)} seeds."
    )


def _about_divergence(setting: Setting) -> Iterable[str]:
    diverged = [row for row in setting.main if row.diverged]
    if diverged:
        counts = ", ".join(f"{row.arm} {numbers.diverged(row)}{_fisher(row)}" for row in diverged)
        yield (
            f"Diverged: {counts}. A diverged trial is worse than any that finished: it loses its pair in p "
            "and w-t-l; means, differences, intervals and dz are over the seeds that finished."
        )
    if setting.otherwise is not None:
        yield otherwise(setting.otherwise)


def _about_stopping(frame: pd.DataFrame) -> Iterable[str]:
    stopped = frame["stopped_epoch"].dropna() if "stopped_epoch" in frame else frame.iloc[:0, 0]
    if len(stopped):
        of = numbers.count(len(frame), "trial")
        epochs = f"after epoch {stopped.min():.0f}" + (f" to {stopped.max():.0f}" if stopped.nunique() > 1 else "")
        yield f"{len(stopped)} of {of} stopped early, {epochs}; their curves end there."


def otherwise(changes: Sequence[VerdictChange]) -> str:
    """Whether the verdicts depend on the rule for diverged trials."""
    if not changes:
        return "Were diverged trials left out instead, no verdict would change."
    return f"Were diverged trials left out instead, verdicts would change. {'; '.join(map(_change, changes))}."


def _change(each: VerdictChange) -> str:
    at = f", then {each.arm_without}" if each.arm_without not in ("", each.arm) else ""
    return f"{each.arm}{at}: {each.verdict_without} instead of {each.verdict}"


def _fisher(row: ArmResult) -> str:
    if row.contrast is None:
        return ""
    return f" ({numbers.p_clause(row.contrast.p_diverged)}, Fisher)"


def _about_interval(setting: Setting) -> Iterable[str]:
    """Where t shows more than the bootstrap does. The opposite says little: with few seeds BCa is too narrow."""
    for row in setting.main:
        if row.contrast and _excludes_zero(row.contrast.difference) and not _excludes_zero(row.contrast.bootstrap):
            bootstrap = numbers.interval(row.contrast.bootstrap, setting.metric)
            yield f"{row.arm}: the bootstrap interval (BCa), {bootstrap}, holds 0 while the t interval does not."


def _excludes_zero(value: Estimate) -> bool:
    return value.low > 0 or value.high < 0


def _about_pairs(setting: Setting, frame: pd.DataFrame) -> Iterable[str]:
    short = [
        f"{row.arm} {row.contrast.pairs}" for row in setting.main if row.contrast and row.contrast.pairs < setting.seeds
    ]
    if short:
        yield f"Fewer than {setting.seeds} pairs of seeds: {', '.join(short)}."
    silent = [row for row in setting.main if row.value.n < row.trials - row.diverged]
    if silent:
        yield f"No finite {setting.metric.name} in finished trials of {_labels(silent)}: left out."
    if frame.duplicated(["arm", "seed"]).any():
        yield "Several trials per arm and seed (folds) were averaged within their seed first."


def _labels(rows: Sequence[ArmResult]) -> str:
    return numbers.listing([row.arm for row in rows])


def _trial_names(rows: pd.DataFrame) -> list[str]:
    names = [f"{arm} seed {seed}" for arm, seed in zip(rows["arm"], rows["seed"], strict=True)]
    errors = rows["error"] if "error" in rows else [None] * len(rows)
    return [
        f"{name} ({_first_line(error)})" if isinstance(error, str) and error else name
        for name, error in zip(names, errors, strict=True)
    ]


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[-1] if text.strip() else ""
    return line if len(line) <= 100 else f"{line[:99]}…"
