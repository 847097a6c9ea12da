"""The report as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from clipbench.analysis import strategy_ranks
from clipbench.analysis.report_model import Flag, Report, SearchResult, Setting
from clipbench.analysis.strategy_ranks import Combined
from clipbench.reporting import answer, claim_evidence, columns, legend, search_sentences, search_tables
from clipbench.reporting.columns import Grid

# A user's names must not open a table cell, a link, HTML or emphasis.
BLANKS = re.compile(r"\n{3,}")
SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def render(report: Report) -> str:
    """The whole report as one document."""
    lines = [f"# {_escape(report.name or 'Comparison')}", ""]
    for setting in report.settings:
        lines += [*_setting(setting), ""]
    lines += _search(report.search) if report.search else []
    lines += _claims(report)
    lines += [line for note in report.notes for line in (f"> {_escape(note)}", "")]
    lines += _items("How to read this:", legend.lines(report))
    return BLANKS.sub("\n\n", "\n".join(lines)).strip() + "\n"


def render_combined(combined: Combined) -> str:
    """Several experiments as one document: answers, ranks, all claims."""
    lines = ["# All experiments", "", combined.size, "", "## Answers", ""]
    lines += [f"- {_escape(line)}" for report in combined.reports for line in answer.lines(report)]
    lines += ["", f"## {strategy_ranks.TITLE}", ""]
    lines += [*_table(combined.ranks.grid), ""] if combined.ranks else []
    lines += [_escape(combined.about_ranks), "", f"## {claim_evidence.TITLE}", ""]
    claims = [(report.name, each) for report in combined.reports for each in report.claims]
    if claims:
        lines += ["| experiment | verdict | claim | expected | evidence |", "| --- | --- | --- | --- | --- |"]
        lines += [_line((name, c.verdict, c.says, c.expect, claim_evidence.sentence(c))) for name, c in claims]
    lines += ["", _escape(claim_evidence.MEANING if claims else strategy_ranks.NO_CLAIMS)]
    return BLANKS.sub("\n\n", "\n".join(lines)).strip() + "\n"


def _setting(setting: Setting) -> Iterator[str]:
    if setting.axes:
        yield from (f"## {_escape(setting.label)}", "")
    yield from (f"**{_escape(setting.headline)}**", "")
    for grid in columns.grids(setting):
        yield from (f"### {_escape(grid.title)}", "", *_table(grid), "")
    yield from _items("Be aware:", columns.flags(setting))
    yield from _items("Notes:", setting.notes)


def _search(search: SearchResult) -> Iterator[str]:
    yield from (f"## {search_sentences.TITLE}", "", f"**{_escape(search.headline)}**", "")
    for grid in search_tables.grids(search):
        yield from (f"### {_escape(grid.title)}", "", *_table(grid), "")
    yield from _list("Be aware:", [_flag(flag) for flag in search_sentences.aware(search)])
    yield from _items("Notes:", search.notes)


def _flag(flag: Flag) -> str:
    return f"{_escape(flag.words)} {_code(flag.remedy)}" if flag.remedy else _escape(flag.words)


def _code(text: str) -> str:
    """What is to be typed, sign by sign; more backticks around it than it has."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{' '.join(text.split())}{fence}"


def _claims(report: Report) -> Iterator[str]:
    if not report.claims:
        return
    yield from (
        f"## {claim_evidence.TITLE}",
        "",
        "| verdict | claim | expected | evidence |",
        "| --- | --- | --- | --- |",
    )
    for each in report.claims:
        yield _line((each.verdict, each.says, each.expect, claim_evidence.sentence(each)))
    yield from ("", _escape(claim_evidence.MEANING), "")


def _table(grid: Grid) -> Iterator[str]:
    yield _line(grid.headers)
    yield _line(tuple("---" if header in grid.text else "---:" for header in grid.headers), escape=False)
    for row in grid.cells:
        yield _line(row)


def _line(cells: tuple[str, ...], *, escape: bool = True) -> str:
    return f"| {' | '.join(_escape(cell) if escape else cell for cell in cells)} |"


def _items(title: str, lines: Sequence[str]) -> Iterator[str]:
    yield from _list(title, [_escape(line) for line in lines])


def _list(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from (title, "", *(f"- {line}" for line in lines), "")


def _escape(text: str) -> str:
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))
