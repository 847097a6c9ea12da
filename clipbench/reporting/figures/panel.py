"""A panel: the axes of a small chart with their grid, ticks and units, and data drawn in its own units."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from clipbench.reporting.figures.drawing import SMALL, Area, Line, Mark, Points, Shape, Words, rectangle, width_of
from clipbench.reporting.figures.scale import Scale


@dataclass(frozen=True)
class Panel:
    """The frame that two scales span. The unit of y stands above it, where it is read without turning the head."""

    x: Scale
    y: Scale
    y_label: str
    x_label: str = ""  # empty where the panel below says it

    def axes(self) -> Iterator[Shape]:
        left, right, bottom = self.x.start, self.x.end, self.y.start
        yield Words(0, self.y.end - 12, self.y_label, size=SMALL, color="muted")
        for value, text in self.y.ticks:
            height = self.y(value)
            yield Line(((left, height), (right, height)), "grid", 1)
            yield Words(left - 6, height + 4, text, "end", SMALL, color="muted")
        yield Line(((left, bottom), (right, bottom)), "muted", 1)
        yield from self._x_ticks()
        if self.x_label:
            yield Words((left + right) / 2, bottom + 32, self.x_label, "middle", SMALL, color="muted")

    def _x_ticks(self) -> Iterator[Shape]:
        bottom, free = self.y.start, -math.inf
        for value, text in self.x.ticks:
            place, half = self.x(value), width_of(text, SMALL) / 2
            yield Line(((place, bottom), (place, bottom + 4)), "muted", 1)
            if self.x_label and place - half > free:
                yield Words(place, bottom + 16, text, "middle", SMALL, color="muted")
                free = place + half + 4

    def line(self, xs: Iterable[float], ys: Iterable[float], color: str, **style: object) -> Iterator[Line]:
        """A line through the points, broken where a value is missing or beyond the axes."""
        for points in _pieces(zip(xs, ys, strict=True), self.y.high):
            yield Line(self.at(points), color, **style)  # type: ignore[arg-type]  # width and dash

    def band(self, xs: Sequence[float], lows: Iterable[float], highs: Iterable[float], color: str) -> Iterator[Area]:
        """The area between two lines."""
        rows = [
            row for row in zip(xs, lows, highs, strict=True) if all(map(math.isfinite, row)) and row[1] <= self.y.high
        ]
        if len(rows) > 1:
            there, back = [(x, high) for x, _, high in rows], [(x, low) for x, low, _ in reversed(rows)]
            yield Area(self.at([*there, *back]), color)

    def across(self, low: float, high: float, color: str) -> Area:
        """A band over the whole width, between two values of y."""
        top, bottom = self.y(high), self.y(low)
        return Area(rectangle(self.x.start, top, self.x.end - self.x.start, max(1.0, bottom - top)), color, 0.22)

    def level(self, value: float, color: str, dash: str = "5 4") -> Line:
        height = self.y(value)
        return Line(((self.x.start, height), (self.x.end, height)), color, 1.2, dash)

    def upright(self, x: float, low: float, high: float, color: str) -> Iterator[Line]:
        """The interval of a point."""
        if math.isfinite(low) and math.isfinite(high):
            yield Line(((self.x(x), self.y(low)), (self.x(x), self.y(high))), color, 1.6)

    def mark(self, x: float, y: float, color: str, shape: str = "circle", title: str = "", size: float = 4.0) -> Mark:
        return Mark(self.x(x), self.y(y), color, shape, size, title)

    def at(self, points: Iterable[tuple[float, float]]) -> Points:
        return tuple((self.x(x), self.y(y)) for x, y in points)


def _pieces(points: Iterable[tuple[float, float]], high: float) -> Iterator[list[tuple[float, float]]]:
    """Runs of finite points; the last one of a run may be the first beyond the axes, so that it is seen to leave."""
    piece: list[tuple[float, float]] = []
    for x, y in points:
        if math.isfinite(y) and (y <= high or piece):
            piece.append((x, y))
        if piece and not y <= high:
            yield piece
            piece = []
    if piece:
        yield piece
