"""Axes: from values to places in a panel, round values along them, and data drawn in its own units."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from clipbench.analysis.report_model import Metric
from clipbench.reporting import numbers
from clipbench.reporting.figures.drawing import SMALL, Panel, Point, width_of
from clipbench.stats import Estimate

ItemT = TypeVar("ItemT")
MOST_TICKS = 5
MOST = 1e250  # what diverged may be as large as a number can be, and there must be room beyond it
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """Values between `low` and `high` are drawn between `start` and `end`, in pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    labels: tuple[tuple[float, str], ...] = ()  # what the axis shows, instead of round values

    def __call__(self, value: float) -> float:
        """The place of a value; one outside the axis is drawn at its edge."""
        low, high = self._position(self.low), self._position(self.high)
        share = min(1.0, max(0.0, (self._position(value) - low) / (high - low)))
        return self.start + share * (self.end - self.start)

    def _position(self, value: float) -> float:
        return math.log10(max(value, 1e-300)) if self.log else value

    @property
    def ticks(self) -> Sequence[tuple[float, str]]:
        values = _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)
        return self.labels or [(value, tick_label(value)) for value in values]

    def at(self, values: Iterable[float]) -> Scale:
        """The same scale with ticks at these values, in three digits."""
        return replace(self, labels=tuple((value, tick_label(float(f"{value:.3g}"))) for value in values))


def scale(values: Iterable[float], start: float, end: float, *, log: bool = False, pad: float = 0.06) -> Scale:
    """A scale that holds all finite values, with a little room at its ends."""
    least = 1 / MOST if log else -MOST
    known = [min(max(value, least), MOST) for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(known), max(known)) if known else (1.0, 10.0) if log else (0.0, 1.0)
    if log:
        room = max(0.04, pad * (math.log10(high) - math.log10(low))) if high > low else 0.5
        return Scale(low / 10**room, high * 10**room, start, end, log=True)
    room = pad * (high - low) or abs(low) * 0.1 or 1.0
    return Scale(low - room, high + room, start, end)


def spans_decades(values: Iterable[float], ratio: float = 30.0) -> bool:
    """Whether small values can be told apart on a log axis only."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) / min(known) > ratio


def tick_label(value: float) -> str:
    """`0.001`, `10⁻⁵`, `2·10⁶`."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}"
    digits, _, exponent = f"{value:.2e}".partition("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return power if float(digits) == 1 else f"{float(digits):g}·{power}"


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / (MOST_TICKS - 1)
    magnitude = 10 ** math.floor(math.log10(rough))
    larger = [factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * 0.999]
    finer = [factor * magnitude for factor in (5, 2, 1, 0.5, 0.2) if factor * magnitude < larger[0]]
    for step in (larger[0], *finer):  # at least two ticks: one would not show a distance
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last > first:
            break
    return [n * step for n in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    stride = -(-(last - first + 1) // MOST_TICKS) or 1
    decades = [10.0**power for power in range(first, last + 1) if power % stride == 0]
    if len(decades) > 1:
        return decades
    finer = [factor * 10.0**power for power in range(first - 1, last + 1) for factor in (1, 2, 5)]
    inside = [value for value in finer if low <= value <= high]
    return inside if len(inside) > 1 else _linear_ticks(low, high)


def shown(value: Estimate, metric: Metric) -> tuple[float, float, float]:
    """The low end, the mean and the high end, in the unit in which the metric is shown."""
    factor = numbers.scale(metric)
    return factor * value.low, factor * value.mean, factor * value.high


def metric_label(metric: Metric, axis: Scale) -> str:
    better = "higher" if metric.higher_is_better else "lower"
    return f"{numbers.unit(metric)}{', log axis' if axis.log else ''} ({better} is better)"


def front(items: Iterable[ItemT], place: Callable[[ItemT], Point]) -> list[ItemT]:
    """The items that no other one beats in both coordinates, of which less is better; the best in the first on top."""
    found: list[ItemT] = []
    for item in sorted(items, key=place):
        if not found or place(item)[1] < place(found[-1])[1]:
            found.append(item)
    return found


def staircase(points: Sequence[Point]) -> list[Point]:
    """A line in steps through points: nothing was measured between them."""
    steps = [corner for (_, y), after in pairwise(points) for corner in ((after[0], y), after)]
    return [*points[:1], *steps]


@dataclass(frozen=True)
class Axes:
    """Two scales in a panel, drawn with grid, ticks and units. The unit of y is written above it."""

    panel: Panel
    x: Scale
    y: Scale
    y_label: str
    x_label: str = ""  # empty where the axes below have the same x

    def __post_init__(self) -> None:
        left, right, bottom = self.x.start, self.x.end, self.y.start
        self.panel.text(0, self.y.end - 12, self.y_label)
        for value, text in self.y.ticks:
            self.panel.line([(left, self.y(value)), (right, self.y(value))], "grid", 1)
            self.panel.text(left - 6, self.y(value) + 4, text, "end")
        self.panel.line([(left, bottom), (right, bottom)], "muted", 1)
        x_axis(self.panel, self.x, bottom, self.x_label, has_labels=bool(self.x_label))

    def line(self, points: Iterable[Point], color: str, width: float = 1.5, dash: str = "") -> None:
        """A line, broken where a value is missing; the first point beyond the axes is drawn at their edge."""
        piece: list[Point] = []
        for x, y in [*points, (math.nan, math.nan)]:
            if math.isfinite(y) and (y <= self.y.high or piece):
                piece.append((self.x(x), self.y(y)))
            if piece and not y <= self.y.high:
                self.panel.line(piece, color, width, dash)
                piece = []

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], color: str) -> None:
        """The area between two lines."""
        rows = zip(xs, lows, highs, strict=True)
        rows_inside = [row for row in rows if all(map(math.isfinite, row)) and row[1] <= self.y.high]
        if len(rows_inside) > 1:
            upper = [(self.x(x), self.y(high)) for x, _, high in rows_inside]
            self.panel.area([*upper, *((self.x(x), self.y(low)) for x, low, _ in reversed(rows_inside))], color)

    def level(self, low: float, mean: float, high: float) -> None:
        """An estimate over the whole width: a gray band with a dashed line at its mean."""
        if math.isfinite(low):
            top, bottom = self.y(high), self.y(low)
            self.panel.box(self.x.start, top, self.x.end - self.x.start, max(1.0, bottom - top), "gray", 0.22)
        if math.isfinite(mean):
            self.panel.line([(self.x.start, self.y(mean)), (self.x.end, self.y(mean))], "muted", 1.2, "5 4")

    def interval(self, x: float, low: float, high: float, color: str) -> None:
        if math.isfinite(low) and math.isfinite(high):
            self.panel.line([(self.x(x), self.y(low)), (self.x(x), self.y(high))], color, 1.6)

    def mark(self, x: float, y: float, color: str, shape: str = "circle", title: str = "", size: float = 4.0) -> None:
        self.panel.mark(self.x(x), self.y(y), color, shape, title, size)


def x_axis(
    panel: Panel, x: Scale, bottom: float, label: str, *, top: float = math.nan, has_labels: bool = True
) -> None:
    """Ticks below a chart, with labels where there is room for them; grid lines up to `top` where that is given."""
    free = -math.inf
    for value, text in x.ticks:
        place, half = x(value), width_of(text, SMALL) / 2
        if math.isfinite(top):
            panel.line([(place, top), (place, bottom)], "grid", 1)
        else:
            panel.line([(place, bottom), (place, bottom + 4)], "muted", 1)
        if has_labels and place - half > free:
            panel.text(place, bottom + 16, text, "middle")
            free = place + half + 4
    if label:
        middle = min((x.start + x.end) / 2, panel.width - width_of(label, SMALL) / 2)
        panel.text(middle, bottom + 32, label, "middle")
