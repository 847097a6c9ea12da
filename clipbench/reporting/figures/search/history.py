"""How a search went: the score of every point in the order in which they were tried, and the best so far."""

from __future__ import annotations

import math
from collections.abc import Iterator

from clipbench.analysis.report_model import ContenderResult, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.drawing import TITLE, Drawing, Figure, Shape, Words, shortened
from clipbench.reporting.figures.panel import Panel
from clipbench.reporting.figures.scale import Scale
from clipbench.reporting.figures.search.dots import Scores, dots, is_confirmed, legend, scores

WIDTH, HEIGHT = 330.0, 240.0
LEFT, RIGHT, TOP, FLOOR = 44.0, 318.0, 46.0, 196.0


def figure(search: SearchResult, number: int) -> Figure | None:
    """A drawing for each contender that was tried."""
    rows = [row for row in search.found if row.contender.tried]
    if not rows:
        return None
    known = scores(search, number, FLOOR, TOP)
    cells = tuple(_cell(row, known, search) for row in rows)
    name = f"history-{number + 1}" if number else "history"
    by = f" ({known.measure.name})" if len(search.measures) > 1 else ""
    return Figure(name, f"How did the search go?{by}", _caption(known, search), cells)


def _caption(known: Scores, search: SearchResult) -> str:
    cut = " Points that are much worse stand at the edge." if known.is_cut else ""
    return (
        f"Mean {known.measure.name} over the search seeds of each point, in the order in which they were tried. "
        f"{legend(search)}{cut} Green line: the best so far.{_about_fresh(known, search)}"
    )


def _about_fresh(known: Scores, search: SearchResult) -> str:
    if not is_confirmed(search, known.number):
        return ""
    return (
        " Gray band: what the found point reaches on fresh seeds, with its 95 % interval; the search promised too much "
        "where the line ends on the better side of it."
    )


def _cell(row: ContenderResult, known: Scores, search: SearchResult) -> Drawing:
    last = max(search.swept.trials - 1, *(point.number for point in row.contender.points))
    panel = Panel(Scale(-0.5, last + 0.5, LEFT, RIGHT), known.axis, known.unit, "point")
    shapes: list[Shape] = [
        Words(0, 14, shortened(row.contender.label, WIDTH, TITLE), size=TITLE, bold=True),
        *panel.axes(),
        *_fresh(row, known, panel),
        *_best_so_far(row, known, panel),
        *dots(row, {point.number: float(point.number) for point in row.contender.points}, panel, known, search),
    ]
    return Drawing(WIDTH, HEIGHT, tuple(shapes), f"The search of {row.contender.label}", _description(row, search))


def _fresh(row: ContenderResult, known: Scores, panel: Panel) -> Iterator[Shape]:
    confirmed, factor = row.promises[known.number].confirmed, numbers.scale(known.measure)
    if math.isfinite(confirmed.low):
        yield panel.across(factor * confirmed.low, factor * confirmed.high, "gray")
    if math.isfinite(confirmed.mean):
        yield panel.level(factor * confirmed.mean, "muted")


def _best_so_far(row: ContenderResult, known: Scores, panel: Panel) -> Iterator[Shape]:
    """In steps, from the first point that was trained to its end to the last that was tried."""
    sign, xs, ys = known.measure.sign, list[float](), list[float]()
    for point in (point for point in row.contender.points if point.is_steady):
        score = known.height(point)
        if ys and sign * score <= sign * ys[-1]:
            continue
        xs += [point.number, point.number] if ys else [point.number]
        ys += [ys[-1], score] if ys else [score]
    if ys:
        last = max(point.number for point in row.contender.points if point.state != "running")
        yield from panel.line([*xs, last + 0.5], [*ys, ys[-1]], "green")


def _description(row: ContenderResult, search: SearchResult) -> str:
    winner, contender = row.contender.winning, row.contender
    counts = f"{contender.tried} points, {contender.count('pruned')} pruned"
    if winner is None:
        return f"{counts}; nothing found."
    promises = "; ".join(
        f"{each.measure.name} {numbers.mean(each.searched, each.measure)} searched, "
        f"{numbers.estimate(each.confirmed, each.measure)} on fresh seeds"
        for each in row.promises
    )
    found = search_sentences.place(winner, search_sentences.names(search.swept))
    return f"{counts}; found {found} at point {winner.number}: {promises}."
