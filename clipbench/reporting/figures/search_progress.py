"""How a search went: the score of every point in the order in which they were tried, and the best so far."""

from __future__ import annotations

from clipbench.analysis.report_model import ContenderResult, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.axes import Axes, Scale, shown
from clipbench.reporting.figures.drawing import Figure, Panel, Point, staircase
from clipbench.reporting.figures.search_points import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Scores,
    draw_points,
    is_confirmed,
    legend,
    scores,
)


def figure(search: SearchResult, number: int) -> Figure | None:
    """A panel for each contender that was tried."""
    rows = [row for row in search.found if row.contender.tried]
    if not rows:
        return None
    known = scores(search, number)
    fresh = (
        " Gray band: the best point on fresh seeds, with its 95 % interval; where the line ends above that (below it "
        "for a loss), the search promised too much."
    )
    caption = (
        f"Mean {known.metric.name} over the search seeds of each point, in the order in which they were tried. "
        f"{legend(search)}{known.cut} Green line: the best so far.{fresh if is_confirmed(search, number) else ''}"
    )
    name = f"history-{number + 1}" if number else "history"
    by = f" ({known.metric.name})" if len(search.measures) > 1 else ""
    return Figure(name, f"How did the search go?{by}", caption, tuple(_panel(row, known, search) for row in rows))


def _panel(row: ContenderResult, known: Scores, search: SearchResult) -> Panel:
    contender = row.contender
    panel = Panel(WIDTH, HEIGHT, f"The search of {contender.label}", _description(row, search))
    panel.heading(contender.label)
    last = max(search.swept.trials - 1, *(point.number for point in contender.points))
    axes = Axes(panel, Scale(-0.5, last + 0.5, LEFT, RIGHT), known.axis, known.label, "point")
    axes.level(*shown(row.promises[known.number].confirmed, known.metric))
    best = _best_so_far(row, known)
    if best:
        end = max(point.number for point in contender.points if point.state != "running")
        axes.line([*best, (end + 0.5, best[-1][1])], "green")
    draw_points(axes, row, {point.number: float(point.number) for point in contender.points}, known, search)
    return panel


def _best_so_far(row: ContenderResult, known: Scores) -> list[Point]:
    """The corners of a line in steps, from the first point that was trained to its end."""
    best: list[Point] = []
    for point in (point for point in row.contender.points if point.is_steady):
        score = known.height(point)
        if not best or known.metric.sign * (score - best[-1][1]) > 0:
            best.append((point.number, score))
    return staircase(best)


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
