"""The tables as LaTeX with booktabs, to be pasted into a paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from clipbench.analysis.report_model import Report
from clipbench.reporting.chapters import Chapter, chapters
from clipbench.reporting.numbers import NOTHING
from clipbench.reporting.table import Table

HEADER = "% Needs \\usepackage{booktabs}. Written by clipbench; numbers are means over seeds."
# Characters that are special in TeX, and characters that its text fonts lack.
SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "µ": r"$\mu$",
    "∞": r"$\infty$",
    "≤": r"$\le$",
    "…": r"\dots{}",
    '"': r"\textquotedbl{}",
} | {sign: f"\\{sign}" for sign in "&%$#_"}
SPECIAL = re.compile("|".join(map(re.escape, SIGNS)))
# Neither ASCII nor a letter that every font has.
UNKNOWN = re.compile(r"[^\x20-\x7e\u00a1-\u017f]")
NEGATIVE = re.compile(r"(?<![\w.])-(?=[\d.$])")


def render(report: Report) -> str:
    """Return a table environment for each table of the settings and of the search, but those of every threshold."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", report.name) or "comparison"
    lines = [HEADER]
    for chapter in chapters(report, full=False):
        lines += _tables(chapter, f"tab:{name}-{chapter.key}")
    return "\n".join(lines) + "\n"


def _tables(chapter: Chapter, label: str) -> Iterator[str]:
    """The caption of the first one is the result, and what its numbers mean."""
    first, *others = chapter.tables
    meanings = (column.legend for column in first.columns if not column.is_text)
    yield from _table(first, " ".join((chapter.headline, *meanings)), label)
    for table in others:
        yield from _table(table, f"{table.title}.", f"{label}-{table.name}")


def _table(table: Table[Any], caption: str, label: str) -> Iterator[str]:
    alignment = "".join("l" if column.is_text else "r" for column in table.columns)
    yield from ("", r"\begin{table}", r"  \centering", rf"  \caption{{{text(caption)}}}", rf"  \label{{{label}}}")
    yield from (rf"  \begin{{tabular}}{{{alignment}}}", r"    \toprule")
    yield from (f"    {_row(column.header for column in table.columns)}", r"    \midrule")
    yield from (f"    {_row(cell.text for cell in row)}" for row in table.cells)
    yield from (r"    \bottomrule", r"  \end{tabular}", r"\end{table}")


def _row(cells: Iterable[str]) -> str:
    return " & ".join("--" if cell == NOTHING else text(cell) for cell in cells) + r" \\"


def text(value: str) -> str:
    """Escape text for TeX, and turn the hyphen before a number into a minus sign."""
    signed = NEGATIVE.sub("\0", " ".join(value.split()))
    escaped = SPECIAL.sub(lambda found: SIGNS[found[0]], signed)
    parts = escaped.split("\0")
    return "$-$".join(UNKNOWN.sub("?", part) for part in parts)
