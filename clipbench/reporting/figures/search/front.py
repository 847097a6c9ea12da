"""What cannot be had together: two objectives against each other, with the points that nothing beats in both."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from clipbench.analysis.report_model import ContenderResult, SearchResult
from clipbench.reporting.figures.drawing import TITLE, Drawing, Figure, Shape, Words, shortened
from clipbench.reporting.figures.panel import Panel
from clipbench.reporting.figures.search.dots import Scores, describe, scores
from clipbench.store.sweep_file import SearchedPoint

WIDTH, HEIGHT = 330.0, 260.0
LEFT, RIGHT, TOP, FLOOR = 44.0, 318.0, 46.0, 212.0


def figure(search: SearchResult, number: int) -> Figure | None:
    """The first objective against another one, a drawing for each contender."""
    rows = [row for row in search.found if any(point.is_steady for point in row.contender.points)]
    if not rows:
        return None
    x, y = scores(search, number, LEFT, RIGHT), scores(search, 0, FLOOR, TOP)
    every = _front([point for row in rows for point in row.contender.points], x, y)
    cells = tuple(_cell(row, every, x, y, search) for row in rows)
    cut = " Points that are much worse stand at the edge." if x.is_cut or y.is_cut else ""
    caption = (
        f"Each point's {y.measure.name} against its {x.measure.name}, means over the search seeds. ● and the green "
        "line: no other point of the contender is better in both; ○ one is. ◆ the one that was confirmed. Dashed: "
        f"what no point of any contender beats in both.{cut}"
    )
    name = f"front-{number + 1}" if number > 1 else "front"
    return Figure(name, f"What does {y.measure.name} cost in {x.measure.name}?", caption, cells)


def _front(points: Sequence[SearchedPoint], x: Scores, y: Scores) -> list[SearchedPoint]:
    """From the best in x on, each better in y than all before."""
    front: list[SearchedPoint] = []
    steady = [point for point in points if point.is_steady]
    for point in sorted(steady, key=lambda each: (-x.measure.sign * x.height(each), -y.measure.sign * y.height(each))):
        if not front or y.measure.sign * (y.height(point) - y.height(front[-1])) > 0:
            front.append(point)
    return front


def _cell(row: ContenderResult, every: Sequence[SearchedPoint], x: Scores, y: Scores, search: SearchResult) -> Drawing:
    panel = Panel(x.axis, y.axis, y.unit, x.unit)
    own = _front(row.contender.points, x, y)
    shapes: list[Shape] = [
        Words(0, 14, shortened(row.contender.label, WIDTH, TITLE), size=TITLE, bold=True),
        *panel.axes(),
        *panel.line(*_corners(every, x, y), "muted", dash="4 3", width=1.1),
        *panel.line(*_corners(own, x, y), "green"),
        *_marks(row, own, panel, x, y, search),
    ]
    points = "; ".join(describe(row.contender, point, search) for point in own)
    return Drawing(WIDTH, HEIGHT, tuple(shapes), f"Objectives of {row.contender.label}", f"Not beaten: {points}.")


def _corners(front: Sequence[SearchedPoint], x: Scores, y: Scores) -> tuple[list[float], list[float]]:
    """Of a line in steps, for nothing was measured between two points."""
    places = [(x.height(point), y.height(point)) for point in front]
    steps = [corner for (_, low), after in itertools.pairwise(places) for corner in ((after[0], low), after)]
    every = places[:1] + steps
    return [place[0] for place in every], [place[1] for place in every]


def _marks(
    row: ContenderResult, own: Sequence[SearchedPoint], panel: Panel, x: Scores, y: Scores, search: SearchResult
) -> Iterator[Shape]:
    steady = [point for point in row.contender.points if point.is_steady]
    for point in sorted(steady, key=lambda point: (point.number == row.contender.winner, point in own)):
        color, shape, size = ("green", "circle", 4.5) if point in own else ("gray", "ring", 3.5)
        if point.number == row.contender.winner:
            color, shape, size = "orange", "diamond", 5
        title = describe(row.contender, point, search)
        yield panel.mark(x.height(point), y.height(point), color, shape, title, size)
