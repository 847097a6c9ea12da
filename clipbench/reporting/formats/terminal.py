"""The report on a terminal, within 80 columns; colour only repeats what the words say."""

from __future__ import annotations

import textwrap
from typing import Any

import rich.box
import rich.table
from rich.console import Console
from rich.text import Text

from clipbench.analysis import claims, search_result, verdicts
from clipbench.analysis.report_model import Report
from clipbench.analysis.strategy_ranks import Combined
from clipbench.errors import without_control
from clipbench.reporting import answer, claim_evidence, combined, comparison_tables, notes
from clipbench.reporting.chapters import Chapter, chapters, legend
from clipbench.reporting.table import Table
from clipbench.reporting.tones import BAD, BASE, GOOD, OPEN, TONES

COLORS = {GOOD: "green", BAD: "red", OPEN: "yellow", BASE: "cyan"}
STYLES = {verdict: COLORS[tone] for verdict, tone in TONES.items()} | {
    verdicts.BEST: "bold green",
    verdicts.FIRST: "bold green",
    claims.SUPPORTED: "bold green",
    claims.REFUTED: "bold red",
    claims.UNTESTABLE: "dim",
    search_result.PESSIMISTIC: "cyan",
}
WIDE_HEADER = 12


def render(report: Report, console: Console, *, full: bool = True) -> None:
    """Print the report; `full` adds the table of every strategy and threshold."""
    shown = chapters(report, full=full)
    for chapter in shown:
        _chapter(chapter, console)
    _claims(report, console)
    for note in notes.of_report(report):
        _line("Note: ", note, console, "yellow")
    for line in legend(shown):
        _line("", line, console, "dim")


def render_combined(experiments: Combined, console: Console) -> None:
    """Print several experiments together: answers, ranks, all claims."""
    console.print(_text(f"All experiments: {combined.size(experiments)}", "bold"))
    console.print()
    for report in experiments.reports:
        for line in answer.lines(report):
            _line("- ", line, console, "")
    for note in notes.about_tables(experiments.settings):
        _line("Note: ", note, console, "yellow")
    console.print()
    if experiments.ranks:
        console.print(_table(comparison_tables.ranks(experiments.ranks)))
        console.print()
    _line("", combined.about_ranks(experiments), console, "dim")
    console.print()
    claiming = [report for report in experiments.reports if report.claims]
    for report in claiming:
        console.print(_text(f"{claim_evidence.TITLE} of {report.name}"))
        _answered(report, console)
    _line("", claim_evidence.MEANING if claiming else combined.NO_CLAIMS, console, "dim")


def _chapter(chapter: Chapter, console: Console) -> None:
    _line("", chapter.headline, console, "bold")
    console.print()
    for table in chapter.tables:
        console.print(_table(table))
        console.print()
    for flag in chapter.flags:
        _line("! ", flag.words, console, "yellow")
        if flag.remedy:
            console.print(_text(f"  {flag.remedy}"), soft_wrap=True)  # one line, to be copied
    for note in chapter.notes:
        _line("Note: ", note, console, "yellow")
    if chapter.flags or chapter.notes:
        console.print()


def _claims(report: Report, console: Console) -> None:
    if not report.claims:
        return
    console.print(_text(claim_evidence.TITLE))
    _answered(report, console)
    _line("", claim_evidence.MEANING, console, "dim")
    console.print()


def _answered(report: Report, console: Console) -> None:
    for each in report.claims:
        _line(f"{each.verdict:<13} ", f"{each.says} ({each.expect})", console, STYLES[each.verdict])
        _line(" " * 14, claim_evidence.sentence(each), console, "")


def _table(table: Table[Any]) -> rich.table.Table:
    grid = rich.table.Table(
        title=_text(table.title),
        title_justify="left",
        title_style="",
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in table.columns:
        grid.add_column(
            _text(_header(column.header)),
            justify="left" if column.is_text else "right",
            overflow="fold",
            no_wrap=not column.is_text,
        )
    for row in table.cells:
        grid.add_row(*(_text(cell.text, STYLES.get(cell.text, "") if cell.column.words else "") for cell in row))
    return grid


def _header(name: str) -> str:
    """Break `val/accuracy %` into two lines, so that the column is only as wide as its numbers."""
    return name.replace("/", "/\n") if len(name) > WIDE_HEADER else name


def _line(mark: str, text: str, console: Console, style: str) -> None:
    """Print a paragraph with its mark in the margin."""
    lines = textwrap.wrap(text, console.width - len(mark), break_on_hyphens=False) or [""]
    body = "\n".join([lines[0], *(" " * len(mark) + line for line in lines[1:])])
    console.print(_text(mark, style) + _text(body, style if style in ("dim", "bold") else ""), soft_wrap=True)


def _text(words: str, style: str = "") -> Text:
    """Words as they are: no markup of rich's, and nothing that a terminal obeys."""
    return Text(without_control(words), style)
