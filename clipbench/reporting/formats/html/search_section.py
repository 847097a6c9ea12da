"""The section of the page that tells of a search: what it promised, what held, and how it went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clipbench.analysis.report_model import Flag, SearchResult
from clipbench.reporting import numbers, search_column_meaning, search_sentences, search_tables
from clipbench.reporting.column_meaning import FLAGS, NOTES
from clipbench.reporting.columns import Grid
from clipbench.reporting.figures import Figure
from clipbench.reporting.formats.html.escape import text
from clipbench.reporting.formats.html.pieces import boxed, explained, figure, items
from clipbench.reporting.formats.html.table import table

KEY = "search"
# Which figures stand under which table.
BELOW = {"promises": ("history", "slices"), "importances": ("importance", "parallel"), "pareto": ("front",)}


def size(search: SearchResult | None) -> Iterator[str]:
    """How much was searched."""
    if search and search.swept.searched:
        yield f"{numbers.count(sum(each.tried for each in search.swept.searched), 'point')} searched"


def contents(drawn: Sequence[Figure]) -> Iterator[str]:
    yield f"<li><a href=#{KEY}>{search_sentences.TITLE}</a></li>"
    for shown in drawn:
        yield f'<li><a href="#{KEY}-{shown.name}">{text(shown.title)}</a></li>'


def section(search: SearchResult, drawn: Sequence[Figure]) -> Iterator[str]:
    """Each table with its figures below it."""
    yield f"<section id={KEY}><h2>{search_sentences.TITLE}</h2>"
    yield f"<p class=headline>{explained(search.headline, search_column_meaning.HEADLINE)}</p>"
    first, *others = search_tables.grids(search)
    yield from _grid(first, drawn)
    yield boxed("flags", "Be aware", [_flag(flag) for flag in search_sentences.aware(search)], FLAGS)
    yield from _figures(first, drawn)
    for grid in others:
        yield from _grid(grid, drawn)
        yield from _figures(grid, drawn)
    yield items("notes", "Notes", search.notes, NOTES)
    yield "</section>\n"


def _grid(grid: Grid, drawn: Sequence[Figure]) -> Iterator[str]:
    yield f'<h3 id="{KEY}-{grid.name}">{text(grid.title)}</h3>{table(grid)}'


def _figures(grid: Grid, drawn: Sequence[Figure]) -> Iterator[str]:
    table, _, number = grid.name.partition("-")
    names = [f"{name}-{number}" if number else name for name in BELOW.get(table, ())]
    names += [shown.name for shown in drawn if grid.name == "pareto" and shown.name.startswith("front-")]
    yield from (figure(KEY, shown) for name in names for shown in drawn if shown.name == name)


def _flag(flag: Flag) -> str:
    return f"{text(flag.words)} <code>{text(flag.remedy)}</code>" if flag.remedy else text(flag.words)
