"""What to use, how sure that is, and what it costs: the report for whoever has two minutes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from clipbench.report import formatting, layout, verdict
from clipbench.report.plateau import plateau, thresholds
from clipbench.report.tables import Row, Setting

HELPS = "clipping helps"
NOT_SHOWN = "no benefit shown"
NO_MATTER = "clipping does not matter"
TOO_FEW = "too few seeds to tell"
NOTHING = "nothing to compare"


@dataclass(frozen=True)
class Answer:
    """A verdict in words, the advice that follows from it, and its reasons with their terms."""

    verdict: str
    advice: str
    arm: str  # what to use; empty where nothing is advised
    reasons: tuple[tuple[str, str], ...]


def answer(setting: Setting) -> Answer:
    """The advice that the comparison of a setting supports."""
    others = [row for row in setting.main if row.verdict not in (verdict.BASELINE, verdict.NO_BASELINE)]
    words = {row.verdict for row in others}
    good = [row for row in others if row.verdict in (verdict.BEST, verdict.BETTER)]
    if good:
        return _use(setting, good[0])
    if not others:
        return Answer(NOTHING, "There is no pair of a strategy and a baseline.", "", ())
    if words <= {verdict.UNDERPOWERED}:
        return Answer(TOO_FEW, "Train more seeds before choosing.", "", tuple(_reasons(setting, others[0])))
    baseline = setting.baseline or ""
    if words <= {verdict.NO_EFFECT}:
        advice = f"Stay with {baseline}: every strategy is shown to be within the margin."
        return Answer(NO_MATTER, advice, baseline, ())
    advice = f"Stay with {baseline} until more seeds say otherwise."
    return Answer(NOT_SHOWN, advice, baseline, tuple(_reasons(setting, others[0])))


def _use(setting: Setting, row: Row) -> Answer:
    tied = [each.label for each in setting.main if each.verdict == verdict.TIED]
    also = f"Not shown to be worse than it: {formatting.listing(tied)}." if tied else ""
    return Answer(HELPS, also, row.label, tuple(_reasons(setting, row)))


def _reasons(setting: Setting, row: Row) -> Iterator[tuple[str, str]]:
    if row.contrast:
        yield from _effect(setting, row)
    level = plateau(setting, row.strategy)
    tried = len(thresholds(setting, row.strategy))
    if len(level) > 1:
        ends = f"{level[0].threshold:.3g} to {level[-1].threshold:.3g}"
        yield "How exact", f"thresholds from {ends} are within one standard error of the best ({len(level)} of {tried})"
    elif level:
        yield "How exact", f"of {tried} thresholds no other is within one standard error of it"
    baseline = setting.main[0]
    if baseline.verdict == verdict.BASELINE and math.isfinite(row.step_us) and baseline.step_us > 0:
        change = formatting.number(100 * (row.step_us / baseline.step_us - 1), signed=True)
        steps = f"{formatting.number(row.step_us)} µs a step, {formatting.number(baseline.step_us)} without"
        yield "What it costs", f"{change} % time ({steps})"
    if row.flags:
        yield "Be aware", "; ".join(layout.flag_words(row))


def _effect(setting: Setting, row: Row) -> Iterator[tuple[str, str]]:
    assert row.contrast is not None
    if row.contrast.difference.n:
        difference = formatting.interval(row.contrast.difference, setting.metric)
        yield "How much", f"{setting.metric.name} {difference} beside {setting.baseline} (95 % interval)"
    wins = f"better on {row.contrast.score.wins} of {formatting.count(row.contrast.pairs, 'seed')}"
    yield "How sure", f"{formatting.p_clause(row.contrast.p_holm)} after Holm; {wins}"
