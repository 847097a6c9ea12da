"""What quality costs: the time of a step against the metric, with a line through the arms that no other arm beats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from clipbench.analysis import verdicts
from clipbench.analysis.report_model import ArmResult, Setting
from clipbench.reporting import numbers
from clipbench.reporting.figures.chart_axes import Axes, front, metric_label, scale, shown, spans_decades, staircase
from clipbench.reporting.figures.drawing import SMALL, Figure, Panel, Point, shortened, width_of

WIDTH, HEIGHT, LEFT, FLOOR, TOP = 360.0, 268.0, 48.0, 222.0, 40.0
LONGEST = 150.0  # width of a label
Box = tuple[float, float, float, float]


def figure(setting: Setting) -> Figure | None:
    """One panel with the arms of the comparison; None where there are fewer than two."""
    rows = [row for row in setting.main if math.isfinite(row.value.mean) and row.step_us > 0]
    if len(rows) < 2:
        return None
    best = pareto(setting, rows)
    points = "; ".join(f"{row.arm} {numbers.number(row.step_us)} µs, {_value(row, setting)}" for row in rows)
    names = ", ".join(row.arm for row in best)
    description = f"{points}. No other arm is both faster and better than: {names}."
    panel = Panel(WIDTH, HEIGHT, "Cost against quality", description)
    values = {row.arm: shown(row.value, setting.metric) for row in rows}
    log = spans_decades([mean for _, mean, _ in values.values()])
    y = scale(itertools.chain(*values.values()), FLOOR, TOP, log=log)
    x = scale([row.step_us for row in rows], LEFT, WIDTH - 12, pad=0.18)
    axes = Axes(panel, x, y, metric_label(setting.metric, y), "µs per step of one trial")
    corners = staircase([(row.step_us, values[row.arm][1]) for row in best])
    if len(corners) > 1:
        axes.line(corners, "green", dash="5 3")
    for row in rows:
        low, mean, high = values[row.arm]
        color = "green" if row in best else "gray"
        axes.interval(row.step_us, low, high, color)
        shape = "square" if row.verdict == verdicts.BASELINE else "circle" if row in best else "ring"
        title = f"{row.arm}: {setting.metric.name} {_value(row, setting)}, {numbers.number(row.step_us)} µs/step"
        axes.mark(row.step_us, mean, color, shape, title, 5)
    intervals = [[(row.step_us, end) for end in values[row.arm] if math.isfinite(end)] for row in rows]
    marks = {row.arm: (axes.x(row.step_us), axes.y(values[row.arm][1])) for row in rows}
    _label(axes, marks, [*intervals, *itertools.pairwise(corners)])
    baseline = " ■ is the baseline." if setting.baseline else ""
    caption = (
        f"Mean {setting.metric.name} with its 95 % interval against the median time of a step. ● and the line: no "
        f"other arm is both faster and better; ○ one is.{baseline} Times differ by some per cent from run to run."
    )
    return Figure("cost", "What does quality cost?", caption, (panel,), 1)


def pareto(setting: Setting, rows: Sequence[ArmResult]) -> list[ArmResult]:
    """The arms that no other arm beats in both time and metric, the fastest first."""
    return front(rows, lambda row: (row.step_us, -setting.metric.sign * row.value.mean))


def _value(row: ArmResult, setting: Setting) -> str:
    return numbers.estimate(row.value, setting.metric)


def _label(axes: Axes, marks: Mapping[str, Point], lines: Sequence[Sequence[Point]]) -> None:
    """Write a name beside each mark where it covers nothing; the others are named when the pointer rests on them.

    The first of the lines are the intervals of the marks.
    """
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in marks.values()]
    for line in lines:
        xs, ys = [axes.x(x) for x, _ in line], [axes.y(y) for _, y in line]
        taken.append((min(xs) - 2, min(ys) - 2, max(xs) + 2, max(ys) + 2))
    for (arm, (x, y)), (_, highest, *_) in zip(marks.items(), taken[len(marks) :], strict=False):
        name = shortened(arm, LONGEST, SMALL)
        width = width_of(name, SMALL)
        for left, height in _places(x, y, highest + 2, width):
            box = left, height - 9, left + width, height + 2
            is_inside = axes.x.start <= left and box[2] <= WIDTH and box[1] >= TOP - 6 and box[3] <= FLOOR
            if is_inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                is_left = box[2] < x  # the width is an estimate: the words end beside the point
                axes.panel.text(x - 12 if is_left else left, height, name, "end" if is_left else "start", color="ink")
                break


def _places(x: float, y: float, top: float, width: float) -> Iterator[Point]:
    """To the right and to the left, then farther up and down, at last above the interval."""
    for down in (4.0, -8.0, 16.0, -20.0, 28.0):
        yield x + 11, y + down
        yield x - 12 - width, y + down
    yield x - width / 2, top - 6
    yield x - 12, top - 6


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
