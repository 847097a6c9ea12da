"""The report as one HTML file, which opens without a network, on a phone and on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from clipbench.analysis import search_result
from clipbench.analysis.report_model import Report, Setting
from clipbench.analysis.strategy_ranks import Combined
from clipbench.errors import CONTROL
from clipbench.reporting import (
    answer,
    claim_evidence,
    combined,
    comparison_tables,
    headline,
    notes,
    numbers,
    search_sentences,
    search_tables,
    use_it,
)
from clipbench.reporting.arm_code import TITLES
from clipbench.reporting.chapters import chapters, legend
from clipbench.reporting.figures import Figure, critical_difference
from clipbench.reporting.provenance import Provenance
from clipbench.reporting.table import Table
from clipbench.reporting.tones import TONES

if TYPE_CHECKING:
    from jinja2 import Environment

# The sign of a verdict's badge, by the verdict or by its tone; it only repeats the word.
SIGNS = {
    "good": "▲",
    "bad": "▼",
    "open": "?",
    search_result.CONFIRMED: "✓",
    search_result.OPTIMISTIC: "↓",
    search_result.PESSIMISTIC: "↑",
}
# Which figures of a search stand below which of its tables.
BELOW = {"confirmations": ("history", "slices"), "importances": ("importance", "parallel"), "pareto": ("front",)}
# Characters that HTML cannot hold, not even as references, and those that turn the direction of text.
FORBIDDEN = re.compile(rf"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|{CONTROL.pattern}")


def render(
    report: Report,
    figures: Sequence[Sequence[Figure]],
    provenance: Provenance | None = None,
    across: Sequence[Figure] = (),
    searched: Sequence[Figure] = (),
) -> str:
    """The report as one document: with the figures of each setting, those that settings share, those of the search."""
    return _write(
        "report.html",
        title=report.name or "Comparison",
        size=" · ".join(_size(report)) or "Nothing to compare yet.",
        report=report,
        legend=legend(chapters(report)),
        figures=figures,
        across=across,
        searched=searched,
        provenance=provenance,
    )


def render_combined(experiments: Combined) -> str:
    """The page of several experiments."""
    size = combined.size(experiments)
    return _write("combined.html", title="All experiments", size=size, experiments=experiments)


def _write(template: str, **context: Any) -> str:
    return FORBIDDEN.sub("�", _environment().get_template(template).render(context))


@cache
def _environment() -> Environment:
    """Templates escape every text, and fail on a name that is not defined."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    modules = (
        answer,
        claim_evidence,
        combined,
        comparison_tables,
        critical_difference,
        headline,
        notes,
        search_sentences,
        search_tables,
        use_it,
    )
    environment.globals |= {module.__name__.rpartition(".")[2]: module for module in modules}
    environment.globals |= {
        "tone": lambda word: TONES.get(word, "plain"),
        "sign": lambda word: SIGNS.get(word, SIGNS.get(TONES.get(word, ""), "")),
        "about_headline": _about_headline,
        "below": _below,
        "library_titles": TITLES,
    }
    return environment


def _size(report: Report) -> Iterator[str]:
    """`16 arms`, `8 seeds`, `128 trials`, `80 points searched`."""
    settings = [setting for setting in report.settings if not setting.is_choice]
    if settings:
        if len(settings) > 1:
            yield numbers.count(len(settings), "setting")
        yield numbers.count(sum(len(setting.rows) for setting in settings), "arm")
        yield numbers.count(max(setting.seeds for setting in settings), "seed")
        # Trials of the baseline may be in several settings.
        yield numbers.count(len({id_ for setting in settings for row in setting.rows for id_ in row.ids}), "trial")
    if report.search and report.search.swept.searched:
        yield f"{numbers.count(sum(each.tried for each in report.search.swept.searched), 'point')} searched"


def _about_headline(setting: Setting) -> str:
    """What the numbers of the sentence mean; nothing where it has none."""
    if not setting.baseline:
        return ""
    difference = comparison_tables.difference(setting).meaning
    return f"{difference} In brackets: the ends of the interval. {comparison_tables.P_HOLM.meaning}"


def _below(table: Table[Any], figures: Sequence[Figure]) -> list[Figure]:
    """The figures that stand below a table of the search: `history-2` below `confirmations-2`."""
    kind, _, number = table.name.partition("-")
    names = [f"{name}-{number}" if number else name for name in BELOW.get(kind, ())]
    names += [shown.name for shown in figures if kind == "pareto" and shown.name.startswith("front-")]
    return [shown for name in names for shown in figures if shown.name == name]
