"""One sentence that answers the question of an experiment and can be quoted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from clipbench.analysis import training_checks, verdicts
from clipbench.analysis.report_model import ArmResult, Contrast, Setting
from clipbench.reporting import numbers
from clipbench.stats import LEVEL


def sentence(setting: Setting) -> str:
    """The headline of a setting."""
    where = f"On {setting.words}" if setting.words else "In this experiment"
    if setting.baseline is None:
        return f"{where}, there is no baseline to compare with."
    others = [row for row in setting.main if row.verdict != verdicts.BASELINE]
    if not others:
        return f"{where}, only the baseline {setting.baseline} was trained."
    if has_diverged(setting):
        trials = numbers.count(sum(row.trials for row in setting.rows), "trial")
        return (
            f"{where}, every trial diverged ({trials}), so that there is nothing to compare. Choose a lower learning "
            "rate or smaller thresholds."
        )
    if has_learnt_nothing(setting):
        return f"{where}, {_none_has_learnt(setting)}"
    for rows, say in ((_with(others, verdicts.BEST, verdicts.FIRST), _best), (_with(others, verdicts.BETTER), _better)):
        if rows:
            return f"{where}, {say(setting, rows)}"
    return f"{where}, {_none_better(setting, others)}"


def has_diverged(setting: Setting) -> bool:
    """Whether every trial of the setting diverged."""
    return bool(setting.rows) and all(row.trials and row.diverged == row.trials for row in setting.rows)


def has_learnt_nothing(setting: Setting) -> bool:
    """Whether no arm that was measured beats a constant prediction."""
    measured = [row for row in setting.main if not math.isnan(row.value.mean)]
    return bool(measured) and all(training_checks.NOT_ABOVE_CONSTANT in row.flags for row in measured)


def _none_has_learnt(setting: Setting) -> str:
    falling = any(training_checks.STILL_FALLING in row.flags for row in setting.main)
    causes = [
        *(["too few epochs (the loss still falls)"] if falling else []),
        "a learning rate that does not fit",
        "inputs that need `standardize: true`",
    ]
    constant = f"{numbers.mean(setting.constant, setting.metric)}{' %' if setting.metric.is_share else ''}"
    return (
        f"no arm is shown to be better than a constant prediction ({setting.metric.name} {constant}), so that this "
        f"comparison means little. Possible causes: {numbers.listing(causes)}."
    )


def _best(setting: Setting, rows: Sequence[ArmResult]) -> str:
    tied = _with(setting.main, verdicts.TIED)
    also = f" Tied with it: {_labels(tied)}." if tied else ""
    return f"{rows[0].arm} is better than {setting.baseline}: {_evidence(setting, rows[0])}.{also}"


def _better(setting: Setting, rows: Sequence[ArmResult]) -> str:
    others = f" Also better: {_labels(rows[1:])}." if len(rows) > 1 else ""
    return f"{rows[0].arm} is better than {setting.baseline}: {_evidence(setting, rows[0])}.{others}"


def _none_better(setting: Setting, others: Sequence[ArmResult]) -> str:
    seeds = numbers.count(setting.seeds, "seed")
    if all(row.verdict == verdicts.UNDERPOWERED for row in others):
        top = _top(setting, others)
        are = "is" if setting.seeds == 1 else "are"
        return f"{seeds} {are} too few to show that any strategy is better than {setting.baseline}: {top}."
    if all(row.verdict == verdicts.NO_EFFECT for row in others):
        return f"clipping has no effect: {_every(setting)} {_equal_to(setting)} {setting.baseline} ({seeds})."
    worse = _with(others, verdicts.WORSE)
    also = f" Worse: {_labels(worse)}." if worse else ""
    return (
        f"no clipping strategy is shown to be better than {setting.baseline} ({seeds}; {_top(setting, others)}).{also}"
    )


def _every(setting: Setting) -> str:
    chooses = setting.metric.criterion and len(setting.rows) > len(setting.main)
    return f"every strategy{', at its chosen threshold,' if chooses else ''}"


def _equal_to(setting: Setting) -> str:
    if not setting.margin:
        return "trains to the same weights as"
    return f"is within {numbers.margin(setting.margin, setting.metric)} of"


def _top(setting: Setting, others: Sequence[ArmResult]) -> str:
    measured = [row for row in others if row.contrast and not math.isnan(row.contrast.difference.mean)]
    if not measured:
        return "no seed finished for both arms"
    row = max(measured, key=lambda row: row.contrast.difference.mean if row.contrast else -math.inf)
    assert row.contrast is not None
    difference = numbers.interval(row.contrast.difference, setting.metric)
    return f"best difference {difference} by {row.arm}, {_p_of(setting, row, row.contrast)}"


def _p_of(setting: Setting, row: ArmResult, contrast: Contrast) -> str:
    """p, and why a small p does not decide the verdict."""
    if row.verdict == verdicts.NO_EFFECT:
        return f"{numbers.p_clause(contrast.p_holm)}, {'within the margin' if setting.margin else 'the same weights'}"
    if contrast.p_unchosen < LEVEL <= contrast.p_holm:
        return f"{numbers.p_clause(contrast.p_holm)} after correction for the choice of its {setting.choice}"
    return numbers.p_clause(contrast.p_holm)


def _evidence(setting: Setting, row: ArmResult) -> str:
    assert row.contrast is not None
    parts = []
    if row.contrast.difference.n:
        difference = numbers.interval(row.contrast.difference, setting.metric)
        parts.append(f"{setting.metric.name} {difference}")
    baseline = setting.main[0]
    if baseline.diverged:
        word = "without a finite result" if baseline.nonfinite else "diverged"
        parts.append(f"{word} on {numbers.diverged(row)} seeds against {numbers.diverged(baseline)}")
    seeds = numbers.count(row.contrast.pairs, "seed")
    return ", ".join([*parts, f"{numbers.p_clause(row.contrast.p_holm)} ({seeds})"])


def _with(rows: Iterable[ArmResult], *words: str) -> list[ArmResult]:
    return [row for row in rows if row.verdict in words]


def _labels(rows: Sequence[ArmResult]) -> str:
    return numbers.listing([row.arm for row in rows])
