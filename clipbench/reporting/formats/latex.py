"""The tables as LaTeX with booktabs, to be pasted into a paper."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clipbench.analysis.report_model import Report, SearchResult, Setting
from clipbench.reporting import columns as layout
from clipbench.reporting import legend, search_tables
from clipbench.reporting import search_column_meaning as search_meaning
from clipbench.reporting.columns import Grid

HEADER = "% Needs \\usepackage{booktabs}. Written by clipbench; numbers are means over seeds."
# What TeX takes for a command, and signs that its text fonts lack.
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
# What is neither ASCII nor a letter that every font has.
UNKNOWN = re.compile(r"[^\x20-\x7e\u00a1-\u017f]")
NEGATIVE = re.compile(r"(?<![\w.])-(?=[\d.$])")


def render(report: Report) -> str:
    """A table environment for the comparison and the behaviour of every setting."""
    lines = [HEADER]
    for number, setting in enumerate(report.settings):
        lines += _setting(report, number, setting)
    lines += _search(report, report.search) if report.search else []
    return "\n".join(lines) + "\n"


def _search(report: Report, search: SearchResult) -> Iterator[str]:
    first, *others = search_tables.grids(search)
    caption = " ".join((search.headline, *search_meaning.lines(search)))
    yield from _table(first, caption, f"tab:{_name(report)}-search")
    for grid in others:
        yield from _table(grid, f"{grid.title}.", f"tab:{_name(report)}-search-{grid.name}")


def _name(report: Report) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", report.name) or "comparison"


def _setting(report: Report, number: int, setting: Setting) -> Iterator[str]:
    name = _name(report)
    comparison, *others = layout.grids(setting, full=False)
    words = [setting.headline, *legend.lines(Report(report.name, (setting,), ()))[:3]]
    yield from _table(comparison, " ".join(words), f"tab:{name}-{number + 1}")
    for grid in others:
        yield from _table(grid, f"{grid.title}.", f"tab:{name}-{number + 1}-{grid.name}")


def _table(grid: Grid, caption: str, label: str) -> Iterator[str]:
    columns = "".join("l" if header in grid.text else "r" for header in grid.headers)
    yield from ("", r"\begin{table}", r"  \centering", rf"  \caption{{{text(caption)}}}", rf"  \label{{{label}}}")
    yield from (rf"  \begin{{tabular}}{{{columns}}}", r"    \toprule", f"    {_row(grid.headers)}", r"    \midrule")
    yield from (f"    {_row(row)}" for row in grid.cells)
    yield from (r"    \bottomrule", r"  \end{tabular}", r"\end{table}")


def _row(cells: tuple[str, ...]) -> str:
    return " & ".join("--" if cell == "-" else text(cell) for cell in cells) + r" \\"


def text(value: str) -> str:
    """Text that TeX typesets as it stands, a minus as a minus."""
    signed = NEGATIVE.sub("\0", " ".join(value.split()))
    escaped = SPECIAL.sub(lambda found: SIGNS[found[0]], signed)
    parts = escaped.split("\0")
    return "$-$".join(UNKNOWN.sub("?", part) for part in parts)
