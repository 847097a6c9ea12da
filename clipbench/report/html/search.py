"""The section of the page that tells of a search: what it promised, what held, and how it went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clipbench.report import formatting
from clipbench.report.figures import Figure
from clipbench.report.html.escape import text
from clipbench.report.html.pieces import boxed, explained, figure, items
from clipbench.report.html.tables import table
from clipbench.report.layout import Grid
from clipbench.report.meaning import FLAGS, NOTES
from clipbench.report.search import grids, meaning, words
from clipbench.report.tables import Flag, Search

KEY = "search"
# Which figures stand under which table.
BELOW = {"promises": ("history", "slices"), "importances": ("importance", "parallel"), "pareto": ("front",)}


def size(search: Search | None) -> Iterator[str]:
    """How much was searched."""
    if search and search.swept.searched:
        yield f"{formatting.count(sum(each.tried for each in search.swept.searched), 'point')} searched"


def contents(drawn: Sequence[Figure]) -> Iterator[str]:
    yield f"<li><a href=#{KEY}>{words.TITLE}</a></li>"
    for shown in drawn:
        yield f'<li><a href="#{KEY}-{shown.name}">{text(shown.title)}</a></li>'


def section(search: Search, drawn: Sequence[Figure]) -> Iterator[str]:
    """Each table with its figures below it."""
    yield f"<section id={KEY}><h2>{words.TITLE}</h2>"
    yield f"<p class=headline>{explained(search.headline, meaning.HEADLINE)}</p>"
    first, *others = grids.grids(search)
    yield from _grid(first, drawn)
    yield boxed("flags", "Be aware", [_flag(flag) for flag in words.aware(search)], FLAGS)
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
