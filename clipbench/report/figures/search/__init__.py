"""The figures of a search: how it went, where its points lie, what mattered, what cannot be had together."""

from __future__ import annotations

from clipbench.report.figures.drawing import Figure
from clipbench.report.figures.search import front, history, importance, parallel, slices
from clipbench.report.tables import Search


def draw(search: Search) -> list[Figure]:
    """Those that have something to show, in the order in which they are read."""
    objectives = range(len(search.measures))
    every = (
        *(make(search, number) for number in objectives for make in (history.figure, slices.figure)),
        importance.figure(search),
        parallel.figure(search),
        *(front.figure(search, number) for number in objectives[1:]),
    )
    return [figure for figure in every if figure]
