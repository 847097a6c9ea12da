"""The figures of a search: how it went, where its points lie, what mattered, what cannot be had together."""

from __future__ import annotations

from clipbench.analysis.report_model import SearchResult
from clipbench.reporting.figures.drawing import Figure
from clipbench.reporting.figures.search import front, history, importance, parallel, slices


def draw(search: SearchResult) -> list[Figure]:
    """Those that have something to show, in the order in which they are read."""
    objectives = range(len(search.measures))
    every = (
        *(make(search, number) for number in objectives for make in (history.figure, slices.figure)),
        importance.figure(search),
        parallel.figure(search),
        *(front.figure(search, number) for number in objectives[1:]),
    )
    return [figure for figure in every if figure]
