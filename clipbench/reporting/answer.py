"""The short answer of a setting: what to use, how certain that is, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from clipbench.analysis import training_checks, verdicts
from clipbench.analysis.plateau import plateau, thresholds
from clipbench.analysis.report_model import ArmResult, Contrast, Report, Setting
from clipbench.reporting import comparison_tables, headline, notes, numbers
from clipbench.reporting.notes import Fact, Flag
from clipbench.reporting.tones import HELPS, TOO_FEW
from clipbench.stats import Estimate

NOT_SHOWN = "no benefit shown"
NO_EFFECT = "no effect"  # within the margin, which is named
NOTHING = "nothing to compare"
ALL_DIVERGED = "every trial diverged"
NOT_LEARNT = "no arm beats a constant prediction"
NESTED = (
    "The same difference without the bias of choosing the threshold on the reported seeds: for each seed, the "
    "threshold is that with the best validation result on the other seeds."
)
PLATEAU = "One standard error of the best mean: how much it varies by chance between sets of seeds."
FLAGS = "Warnings about this arm. They are not by themselves reasons to reject it."
WITHOUT_DIVERGED = (
    "A diverged trial ranks below every finished trial. This is what would be concluded if diverged trials were left "
    "out of all numbers and choices."
)
FLAG_WORDS = {
    training_checks.NOT_ABOVE_CONSTANT: (
        f"{training_checks.NOT_ABOVE_CONSTANT} (the frequencies of the classes, or the mean of the targets)"
    ),
    training_checks.STILL_FALLING: f"{training_checks.STILL_FALLING} at the end of training (more epochs may help)",
    verdicts.MOSTLY_CLIPS: f"{verdicts.MOSTLY_CLIPS} (the threshold then sets the step size)",
    verdicts.MOSTLY_REFUSES: f"{verdicts.MOSTLY_REFUSES} (training used only the remaining steps)",
}


@dataclass(frozen=True)
class Answer:
    """A verdict, the advice that follows from it, and its reasons."""

    verdict: str
    advice: str
    arm: str  # the arm to use; empty if none is recommended
    reasons: tuple[Fact, ...]


def answer(setting: Setting) -> Answer:
    """The answer that the comparison of a setting supports."""
    if headline.has_diverged(setting):
        return Answer(ALL_DIVERGED, "Mend the training first.", "", ())
    if headline.has_learnt_nothing(setting):
        return Answer(NOT_LEARNT, "Mend the training first.", "", tuple(_warnings(setting.main[0])))
    others = [row for row in setting.main if row.verdict not in (verdicts.BASELINE, verdicts.NO_BASELINE)]
    words = {row.verdict for row in others}
    good = [row for row in others if row.verdict in (verdicts.BEST, verdicts.FIRST, verdicts.BETTER)]
    if good:
        return Answer(HELPS, "", good[0].arm, tuple(_reasons(setting, good[0])))
    if not others:
        return Answer(NOTHING, "There is no strategy that can be compared with a baseline.", "", ())
    if words <= {verdicts.UNDERPOWERED}:
        return Answer(TOO_FEW, "Train more seeds before choosing.", "", tuple(_nearest(setting, others[0])))
    baseline = setting.baseline or ""
    if words <= {verdicts.NO_EFFECT} and not setting.margin:
        return Answer(NO_EFFECT, "Every strategy, at the threshold shown, trains to the same weights.", baseline, ())
    if words <= {verdicts.NO_EFFECT}:
        within = f"{NO_EFFECT}: within {numbers.margin(setting.margin or 0.0, setting.metric)}"
        return Answer(within, "Every strategy is shown to be within the margin.", baseline, ())
    advice = "No strategy is shown to be better; with more seeds this may change."
    return Answer(NOT_SHOWN, advice, baseline, tuple(_nearest(setting, others[0])))


def lines(report: Report) -> Iterator[str]:
    """The answer of every setting in one line, for pages of several experiments."""
    for setting in report.settings:
        yield f"{report.name}: {answer(setting).verdict}. {headline.sentence(setting)}"
    if not report.settings:
        yield f"{report.name}: {' '.join(notes.of_report(report))}"


def flags(setting: Setting) -> list[Flag]:
    """One flag for each row of the comparison that has a warning."""
    return [Flag(f"{row.arm}: {', '.join(_flag_words(row))}") for row in setting.main if row.flags]


def _flag_words(row: ArmResult) -> list[str]:
    return [FLAG_WORDS.get(flag, flag) for flag in row.flags]


def _reasons(setting: Setting, row: ArmResult) -> Iterator[Fact]:
    if row.contrast:
        yield from _effect(setting, row, row.contrast)
    if row.contrast and math.isfinite(row.contrast.nested):
        nested = Estimate(row.contrast.nested, math.nan, math.nan, row.contrast.difference.n)
        words = f"{numbers.interval(nested, setting.metric)} with leave-one-seed-out threshold selection"
        yield Fact("Corrected", words, NESTED)
    if words := _plateau(setting, row):
        yield Fact("Threshold range", words, PLATEAU)
    baseline = setting.main[0]
    if baseline.verdict == verdicts.BASELINE and math.isfinite(row.step_us) and baseline.step_us > 0:
        change = f"{100 * (row.step_us / baseline.step_us - 1):+.0f} % time per step"
        steps = f"{numbers.number(row.step_us)} µs, {baseline.arm} {numbers.number(baseline.step_us)} µs"
        yield Fact("Cost", f"{change} ({steps})", comparison_tables.STEP_TIME.meaning)
    yield from _otherwise(setting)
    yield from _warnings(row)


def _warnings(row: ArmResult) -> Iterator[Fact]:
    if row.flags:
        yield Fact("Warnings", "; ".join(_flag_words(row)), FLAGS)


def _nearest(setting: Setting, row: ArmResult) -> Iterator[Fact]:
    """The evidence about an arm that is not recommended."""
    if row.contrast:
        for reason in _effect(setting, row, row.contrast):
            yield replace(reason, words=f"{row.arm}: {reason.words}")
    yield from _otherwise(setting)


def _effect(setting: Setting, row: ArmResult, contrast: Contrast) -> Iterator[Fact]:
    if contrast.difference.n:
        difference = numbers.interval(contrast.difference, setting.metric)
        words = f"{setting.metric.name} {difference} compared with {setting.baseline}"
        yield Fact("Difference", words, comparison_tables.difference(setting).meaning)
    wins = f"better on {contrast.score.wins} of {numbers.count(contrast.pairs, 'seed')}"
    yield Fact(
        "Significance", f"{numbers.p_clause(contrast.p_holm)} after Holm; {wins}", comparison_tables.P_HOLM.meaning
    )


def _otherwise(setting: Setting) -> Iterator[Fact]:
    """The verdicts that depend on diverged trials, except of arms that have no other trials."""
    changes = [each for each in setting.otherwise or () if each.verdict_without != verdicts.NOTHING_LEFT]
    if changes:
        yield Fact("Effect of diverged trials", notes.without_diverged(changes), WITHOUT_DIVERGED)


def _plateau(setting: Setting, row: ArmResult) -> str:
    if setting.tuned:
        return ""
    level, tried = plateau(setting, row.strategy), len(thresholds(setting, row.strategy))
    if len(level) > 1:
        ends = f"{level[0].threshold:.3g} to {level[-1].threshold:.3g}"
        return f"thresholds from {ends} are within one standard error of the best ({len(level)} of {tried} tried)"
    if not level or tried < 2:
        return ""
    others = f"none of the other {tried - 1} thresholds is" if tried > 2 else "the other threshold is not"
    return f"{others} within one standard error of it"
