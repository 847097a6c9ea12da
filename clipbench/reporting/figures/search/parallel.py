"""Which values go together: each point as a line over the axes of all searched options and its score."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from clipbench.analysis.report_model import ContenderResult, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.drawing import (
    SMALL,
    TITLE,
    Area,
    Drawing,
    Figure,
    Line,
    Shape,
    Words,
    rectangle,
    shortened,
    width_of,
)
from clipbench.reporting.figures.scale import Scale
from clipbench.reporting.figures.search.dots import Scores, scores
from clipbench.reporting.figures.search.slices import axis, place
from clipbench.store.sweep_file import SearchedPoint

NARROW, WIDE, MOST_NARROW = 330.0, 400.0, 3  # with so many options at most, drawings stand side by side
LEFT, TOP, FLOOR, HEIGHT = 30.0, 50.0, 204.0, 216.0
BEST = 0.1  # share of the points that is drawn as good
FEWEST = 3


def figure(search: SearchResult) -> Figure | None:
    """A drawing for each contender of which several options were searched."""
    known = scores(search, 0, FLOOR, TOP)
    rows = [row for row in search.found if len(row.contender.hyperparameters) > 1 and len(_steady(row)) >= FEWEST]
    if not rows:
        return None
    better = "higher" if known.measure.higher_is_better else "lower"
    cut = " Points that are much worse end at its edge." if known.is_cut else ""
    caption = (
        f"Each line is a point that was trained to its end, from its values to its {known.measure.name} at the right "
        f"({better} is better).{cut} Thick orange: the found one. Blue: the best tenth. Gray: the others. Where blue "
        "lines run together, the value matters; where they spread, it does not."
    )
    is_narrow = max(len(row.contender.hyperparameters) for row in rows) <= MOST_NARROW
    cells = tuple(_cell(row, known, search, NARROW if is_narrow else WIDE) for row in rows)
    return Figure("parallel", "Which values go together?", caption, cells, 3 if is_narrow else 1)


def _steady(row: ContenderResult) -> list[SearchedPoint]:
    return [point for point in row.contender.points if point.is_steady]


def _cell(row: ContenderResult, known: Scores, search: SearchResult, width: float) -> Drawing:
    names, hyperparameters = search_sentences.names(search.swept), row.contender.hyperparameters
    axes = [axis(k, [place(k, p.values.get(k.path)) for p in _steady(row)], FLOOR, TOP) for k in hyperparameters] + [
        known.axis
    ]
    labels = [*(names[param.path] for param in hyperparameters), numbers.unit(known.measure)]
    room = (width - LEFT - 12) / len(hyperparameters)
    xs = [LEFT + room * number for number in range(len(axes))]
    points = sorted(_steady(row), key=lambda point: known.measure.sign * point.score(0))
    best = len(points) - max(FEWEST, math.ceil(BEST * len(points)))
    shapes: list[Shape] = [Words(0, 14, shortened(row.contender.label, width, TITLE), size=TITLE, bold=True)]
    for number, point in enumerate(points):
        if point.number != row.contender.winner:
            shapes += _line(row, point, known, axes, xs, *(("blue", 1.6) if number >= best else ("gray", 0.8)))
    if row.contender.winning:
        shapes += _line(row, row.contender.winning, known, axes, xs, "orange", 2.6)
    for scale, x, label in zip(axes, xs, labels, strict=True):
        shapes += _axis(scale, x, shortened(label, room - 6, SMALL), width)
    title = f"Values of {row.contender.label} that go together"
    return Drawing(width, HEIGHT, tuple(shapes), title, _description(row, points[best:], search))


def _line(
    row: ContenderResult,
    point: SearchedPoint,
    known: Scores,
    axes: Sequence[Scale],
    xs: Sequence[float],
    color: str,
    width: float,
) -> Iterator[Shape]:
    values = [place(param, point.values.get(param.path)) for param in row.contender.hyperparameters] + [
        known.height(point)
    ]
    if all(map(math.isfinite, values)):
        yield Line(tuple((x, scale(value)) for x, scale, value in zip(xs, axes, values, strict=True)), color, width)


def _axis(scale: Scale, x: float, label: str, width: float) -> Iterator[Shape]:
    """The ticks stand on paper beside the axis, so that lines do not cross them."""
    yield Line(((x, TOP), (x, FLOOR)), "muted", 1.2)
    half = width_of(label, SMALL) / 2
    place, anchor = (0.0, "start") if x < half else (width, "end") if x + half > width else (x, "middle")
    yield Words(place, TOP - 14, label, anchor, SMALL, color="muted")
    for value, text in scale.ticks:
        height, width = scale(value), width_of(text, SMALL)
        yield Area(rectangle(x - 7 - width, height - 6, width + 3, 12), "paper", 0.8)
        yield Line(((x - 3, height), (x, height)), "muted", 1)
        yield Words(x - 5, height + 4, text, "end", SMALL, color="muted")


def _description(row: ContenderResult, best: Sequence[SearchedPoint], search: SearchResult) -> str:
    names = search_sentences.names(search.swept)
    places = "; ".join(search_sentences.place(point, names) for point in reversed(best))
    return f"The best {len(best)} of {len(_steady(row))} points, from the best on: {places}."
