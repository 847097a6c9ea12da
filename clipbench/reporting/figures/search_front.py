"""Two objectives of a search against each other, with the points that no other point beats in both."""

from __future__ import annotations

from collections.abc import Sequence

from clipbench.analysis.report_model import ContenderResult, SearchResult
from clipbench.reporting.figures.chart_axes import Axes
from clipbench.reporting.figures.drawing import Figure, Panel, staircase
from clipbench.reporting.figures.search_points import LEFT, RIGHT, WIDTH, Scores, describe, scores
from clipbench.store.sweep_file import SearchedPoint

HEIGHT, TOP, FLOOR = 260.0, 46.0, 212.0


def figure(search: SearchResult, number: int) -> Figure | None:
    """The first objective against another one, a panel for each contender."""
    rows = [row for row in search.found if any(point.is_steady for point in row.contender.points)]
    if not rows:
        return None
    x, y = scores(search, number, LEFT, RIGHT), scores(search, 0, FLOOR, TOP)
    every = _front([point for row in rows for point in row.contender.points], x, y)
    caption = (
        f"Each point's {y.metric.name} against its {x.metric.name}, means over the search seeds. ● and the green "
        "line: no other point of the contender is better in both; ○ one is. ◆ the one that was confirmed. Dashed: "
        f"the points that no point of any contender beats in both.{x.cut or y.cut}"
    )
    name = f"front-{number + 1}" if number > 1 else "front"
    panels = tuple(_panel(row, every, x, y, search) for row in rows)
    return Figure(name, f"What does {y.metric.name} cost in {x.metric.name}?", caption, panels)


def _front(points: Sequence[SearchedPoint], x: Scores, y: Scores) -> list[SearchedPoint]:
    """From the best in x on, each better in y than all before."""
    front: list[SearchedPoint] = []
    steady = [point for point in points if point.is_steady]
    for point in sorted(steady, key=lambda each: (-x.metric.sign * x.height(each), -y.metric.sign * y.height(each))):
        if not front or y.metric.sign * (y.height(point) - y.height(front[-1])) > 0:
            front.append(point)
    return front


def _panel(row: ContenderResult, every: Sequence[SearchedPoint], x: Scores, y: Scores, search: SearchResult) -> Panel:
    contender, own = row.contender, _front(row.contender.points, x, y)
    points = "; ".join(describe(contender, point, search) for point in own)
    panel = Panel(WIDTH, HEIGHT, f"Objectives of {contender.label}", f"Not beaten: {points}.")
    panel.heading(contender.label)
    axes = Axes(panel, x.axis, y.axis, y.label, x.label)
    axes.line(staircase([(x.height(point), y.height(point)) for point in every]), "muted", 1.1, "4 3")
    axes.line(staircase([(x.height(point), y.height(point)) for point in own]), "green")
    steady = [point for point in contender.points if point.is_steady]
    for point in sorted(steady, key=lambda point: (point.number == contender.winner, point in own)):
        color, shape, size = ("green", "circle", 4.5) if point in own else ("gray", "ring", 3.5)
        if point.number == contender.winner:
            color, shape, size = "orange", "diamond", 5
        axes.mark(x.height(point), y.height(point), color, shape, describe(contender, point, search), size)
    return panel
