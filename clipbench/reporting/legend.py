"""What the columns and verdicts mean, for somebody who has never seen the tables."""

from __future__ import annotations

from collections.abc import Iterator

from clipbench.analysis import verdicts
from clipbench.analysis.report_model import Report, Setting
from clipbench.reporting import numbers
from clipbench.reporting import search_column_meaning as search_meaning


def lines(report: Report) -> tuple[str, ...]:
    """What the tables of all settings need, each line once."""
    parts = (_value, _difference, _choice, _verdicts, _behaviour)
    every = (line for part in parts for setting in report.settings for line in part(setting))
    return tuple(dict.fromkeys((*every, *search_meaning.lines(report.search))))


def _value(setting: Setting) -> Iterator[str]:
    better = "higher" if setting.metric.higher_is_better else "lower"
    yield f"{setting.metric.name}: mean over seeds ± half of its 95 % t interval; {better} is better."
    if setting.metric.name == "epochs_to_target":
        yield "A trial that never reached the target counts with all its epochs: such means are too small."


def _difference(setting: Setting) -> Iterator[str]:
    if setting.baseline is None:
        return
    yield (
        f"vs {setting.versus}: difference paired by seed ± half of its 95 % t interval; "
        "positive is better, whatever the metric."
    )
    yield "p (Holm): two-sided paired sign-flip test of that difference, corrected for the rows of the table."
    yield "dz: mean difference / its standard deviation over seeds. w-t-l: seeds won, tied, lost."


def _choice(setting: Setting) -> Iterator[str]:
    if setting.is_choice:
        yield (
            f"A strategy's {setting.choice}, and the baseline's, are those with the best mean "
            f"{setting.metric.criterion}; what diverged on more seeds ranks below."
        )
    elif setting.searched:
        yield "Each strategy stands at the values that the search found, on seeds that the search never saw."
    elif setting.metric.criterion:
        yield (
            f"A strategy's threshold is the one with the best mean {setting.metric.criterion} (*); "
            "one that diverged on more seeds ranks below."
        )


def _verdicts(setting: Setting) -> Iterator[str]:
    is_choice = setting.metric.criterion and not setting.searched
    choice = ", also when the test repeats the choice of threshold" if is_choice else ""
    better = f"better than the baseline (p < 0.05{choice})"
    margin = numbers.margin(setting.margin, setting.metric) if setting.margin else "the margin"
    meanings = {
        verdicts.BEST: f"{better}, and first of those on validation.",
        verdicts.TIED: "better than the baseline too, and not shown to be worse than the best.",
        verdicts.BETTER: f"{better}.",
        verdicts.WORSE: "worse than the baseline (p < 0.05).",
        verdicts.NO_EFFECT: f"shown to lie within {margin} of the baseline (TOST, p < 0.05: its 90 % interval does).",
        verdicts.UNDERPOWERED: "too few seeds to reach p < 0.05, whatever they show.",
        verdicts.OPEN: "neither a difference nor its absence is shown.",
    }
    used = {row.verdict for row in setting.main}
    yield from (f"{word}: {meaning}" for word, meaning in meanings.items() if word in used)


def _behaviour(setting: Setting) -> Iterator[str]:
    yield (
        "norm: median gradient norm before clipping. clipped: share of steps on which the rule fired. "
        "µs/step: time of a step of one trial."
    )
    if any(row.reach for row in setting.main):
        yield (
            "median: epochs to the target; a seed that never got there counts as later than all others. restricted "
            "mean: it counts with all its epochs. p (log-rank): both reach it at one rate; not corrected."
        )
