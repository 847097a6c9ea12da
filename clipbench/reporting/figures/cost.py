"""What quality costs: time per step against the metric, with those arms marked that nothing beats in both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from clipbench.analysis import verdicts
from clipbench.analysis.report_model import ArmResult, Setting
from clipbench.reporting import numbers
from clipbench.reporting.figures.drawing import SMALL, Drawing, Figure, Points, Shape, Words, shortened, width_of
from clipbench.reporting.figures.panel import Panel
from clipbench.reporting.figures.scale import scale, spans_decades

WIDTH, HEIGHT, LEFT, FLOOR, TOP = 400.0, 268.0, 48.0, 222.0, 40.0
LETTERS = 150.0  # the widest label
Place = tuple[float, float]
Box = tuple[float, float, float, float]


def figure(setting: Setting) -> Figure | None:
    """One drawing of the arms in the comparison; None where no two of them can be compared."""
    rows = [row for row in setting.main if math.isfinite(row.value.mean) and row.step_us > 0]
    if len(rows) < 2:
        return None
    factor = numbers.scale(setting.metric)
    ends = [factor * end for row in rows for end in (row.value.low, row.value.mean, row.value.high)]
    log = spans_decades([factor * row.value.mean for row in rows])
    x = scale([row.step_us for row in rows], LEFT, WIDTH - 12, pad=0.18)
    better = "higher" if setting.metric.higher_is_better else "lower"
    unit = f"{numbers.unit(setting.metric)}{', log axis' if log else ''} ({better} is better)"
    panel = Panel(x, scale(ends, FLOOR, TOP, log=log), unit, "µs per step of one trial")
    front = pareto(setting, rows)
    corners = _corners(front, factor)
    shapes = [*panel.axes(), *_front(corners, panel)]
    for row in rows:
        shapes += _point(row, panel, factor, is_front=row in front, setting=setting)
    shapes += _labels(rows, corners, panel, factor)
    names = ", ".join(row.label for row in front)
    points = "; ".join(
        f"{row.label} {numbers.number(row.step_us)} µs, {numbers.estimate(row.value, setting.metric)}" for row in rows
    )
    drawing = Drawing(WIDTH, HEIGHT, tuple(shapes), "Cost against quality", f"{points}. Not beaten in both: {names}.")
    return Figure("cost", "What does quality cost?", _caption(setting), (drawing,), 1)


def pareto(setting: Setting, rows: Sequence[ArmResult]) -> list[ArmResult]:
    """The arms that no other arm beats in time and in the metric, from the cheapest."""
    front: list[ArmResult] = []
    for row in sorted(rows, key=lambda row: (row.step_us, -setting.metric.sign * row.value.mean)):
        if not front or setting.metric.sign * (row.value.mean - front[-1].value.mean) > 0:
            front.append(row)
    return front


def _caption(setting: Setting) -> str:
    baseline = " ■ is the baseline." if setting.baseline else ""
    return (
        f"Mean {setting.metric.name} with its 95 % interval against the median time of a step. ● and the line: no "
        f"other arm is both faster and better; ○ one is.{baseline} Times differ by some per cent from run to run."
    )


def _front(corners: Sequence[Place], panel: Panel) -> Iterator[Shape]:
    if len(corners) > 1:
        yield from panel.line([x for x, _ in corners], [y for _, y in corners], "green", dash="5 3")


def _corners(front: Sequence[ArmResult], factor: int) -> list[Place]:
    """Of a line in steps, since nothing was measured between two arms."""
    places = [(row.step_us, factor * row.value.mean) for row in front]
    return places[:1] + [corner for (_, y), after in itertools.pairwise(places) for corner in ((after[0], y), after)]


def _point(row: ArmResult, panel: Panel, factor: int, *, is_front: bool, setting: Setting) -> Iterator[Shape]:
    color = "green" if is_front else "gray"
    yield from panel.upright(row.step_us, factor * row.value.low, factor * row.value.high, color)
    shape = "square" if row.verdict == verdicts.BASELINE else "circle" if is_front else "ring"
    yield panel.mark(row.step_us, factor * row.value.mean, color, shape, _words(row, setting), 5)


def _words(row: ArmResult, setting: Setting) -> str:
    value = numbers.estimate(row.value, setting.metric)
    return f"{row.label}: {setting.metric.name} {value}, {numbers.number(row.step_us)} µs/step"


def _labels(rows: Sequence[ArmResult], corners: Sequence[Place], panel: Panel, factor: int) -> Iterator[Shape]:
    """A name beside each point where it covers nothing; the others are named where one points at them."""
    points = [(panel.x(row.step_us), panel.y(factor * row.value.mean)) for row in rows]
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    taken += [_around(panel.at([one, other])) for one, other in itertools.pairwise(corners)]
    for row in rows:
        ends = [(row.step_us, factor * end) for end in (row.value.low, row.value.high) if math.isfinite(end)]
        taken += [_around(panel.at(ends))] if ends else []
    for row, (x, y) in zip(rows, points, strict=True):
        name = shortened(row.label, LETTERS, SMALL)
        top = panel.y(factor * row.value.high) if math.isfinite(row.value.high) else y
        for left, height in _places(x, y, top, width_of(name, SMALL)):
            box = left, height - 9, left + width_of(name, SMALL), height + 2
            inside = panel.x.start <= box[0] and box[2] <= WIDTH and box[1] >= TOP - 6 and box[3] <= FLOOR
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                is_left = box[2] < x  # there is no font to measure: what stands beside a point ends there
                yield Words(x - 12 if is_left else left, height, name, "end" if is_left else "start", SMALL)
                break


def _around(points: Points) -> Box:
    xs, ys = zip(*points, strict=True)
    return min(xs) - 2, min(ys) - 2, max(xs) + 2, max(ys) + 2


def _places(x: float, y: float, top: float, width: float) -> Iterator[tuple[float, float]]:
    """To the right, to the left, then farther up and down, at last above the interval."""
    for down in (4.0, -8.0, 16.0, -20.0, 28.0):
        yield x + 11, y + down
        yield x - 12 - width, y + down
    yield x - width / 2, top - 6
    yield x - 12, top - 6


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
