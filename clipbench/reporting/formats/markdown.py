"""The report as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from clipbench.analysis.report_model import Report
from clipbench.analysis.strategy_ranks import Combined
from clipbench.errors import without_control
from clipbench.reporting import answer, claim_evidence, combined, comparison_tables, notes, use_it
from clipbench.reporting.arm_code import TITLES
from clipbench.reporting.chapters import Chapter, chapters, legend
from clipbench.reporting.notes import Flag
from clipbench.reporting.table import Table

BLANKS = re.compile(r"\n{3,}")
# A user's names must not open a table cell, a link, HTML, a formula or emphasis.
SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&$])")


def render(report: Report) -> str:
    """The whole report as one document."""
    lines = [f"# {_escape(report.name or 'Comparison')}", ""]
    shown = chapters(report)
    lines += [line for chapter in shown for line in (*_chapter(chapter), "")]
    lines += _claims(report)
    lines += _use_it(report)
    lines += [line for note in notes.of_report(report) for line in (f"> {_escape(note)}", "")]
    lines += _list("How to read this:", [_escape(line) for line in legend(shown)])
    return BLANKS.sub("\n\n", "\n".join(lines)).strip() + "\n"


def render_combined(experiments: Combined) -> str:
    """Several experiments as one document: answers, ranks, all claims."""
    lines = ["# All experiments", "", combined.size(experiments), "", "## Answers", ""]
    lines += [f"- {_escape(line)}" for report in experiments.reports for line in answer.lines(report)]
    lines += ["", *map(_escape, notes.about_tables(experiments.settings)), "", "## Ranks", ""]
    lines += [*_table(comparison_tables.ranks(experiments.ranks)), ""] if experiments.ranks else []
    lines += [_escape(combined.about_ranks(experiments)), "", f"## {claim_evidence.TITLE}", ""]
    claims = [(report.name, each) for report in experiments.reports for each in report.claims]
    if claims:
        lines += ["| experiment | verdict | claim | expected | evidence |", "| --- | --- | --- | --- | --- |"]
        lines += [_line((name, c.verdict, c.says, c.expect, claim_evidence.sentence(c))) for name, c in claims]
    lines += ["", _escape(claim_evidence.MEANING if claims else combined.NO_CLAIMS)]
    return BLANKS.sub("\n\n", "\n".join(lines)).strip() + "\n"


def _chapter(chapter: Chapter) -> Iterator[str]:
    if chapter.title:
        yield from (f"## {_escape(chapter.title)}", "")
    yield from (f"**{_escape(chapter.headline)}**", "")
    for table in chapter.tables:
        yield from (f"### {_escape(table.title)}", "", *_table(table), "")
    yield from _list("Warnings:", [_flag(flag) for flag in chapter.flags])
    yield from _list("Notes:", [_escape(note) for note in chapter.notes])


def _flag(flag: Flag) -> str:
    return f"{_escape(flag.words)} {_code(flag.remedy)}" if flag.remedy else _escape(flag.words)


def _code(text: str) -> str:
    """A command as inline code, in a fence of more backticks than it holds."""
    fence = _fence(text)
    return f"{fence}{' '.join(without_control(text).split())}{fence}"


def _fence(text: str, least: int = 1) -> str:
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


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


def _use_it(report: Report) -> Iterator[str]:
    if not report.settings:
        return
    yield from (f"## {use_it.TITLE}", "")
    for use in use_it.uses(report):
        named = f"**{_escape(use.title)}** " if use.title else ""
        command = f" {_code(use.command)}" if use.command and use.title else ""
        yield from (f"{named}{_escape(use.sentence)}{command}", "")
        for code in use.codes:
            if code.lines:
                fence = _fence(code.text, least=3)
                yield from (f"{TITLES[code.library]}:", "", f"{fence}python", without_control(code.text), fence, "")
            else:
                yield from (_escape(f"{code.why_not} {code.remedy}"), "")
        if use.command and not use.title:
            yield from (f"{use_it.OF_ANOTHER} {_code(use.command)}", "")


def _table(table: Table[Any]) -> Iterator[str]:
    yield _line([column.header for column in table.columns])
    yield f"| {' | '.join('---' if column.is_text else '---:' for column in table.columns)} |"
    for row in table.cells:
        yield _line([cell.text for cell in row])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escape, cells))} |"


def _list(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from (title, "", *(f"- {line}" for line in lines), "")


def _escape(text: str) -> str:
    """The one way of a user's words into the text, where they are words and nothing else."""
    return SPECIAL.sub(r"\\\1", " ".join(without_control(text).split()))
