"""Every strategy beside the baseline: differences paired by seed, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator

from clipbench.analysis import verdicts
from clipbench.analysis.report_model import ArmResult, Contrast, Setting
from clipbench.reporting import numbers
from clipbench.reporting.figures.drawing import (
    SMALL,
    Area,
    Drawing,
    Figure,
    Line,
    Mark,
    Shape,
    Words,
    rectangle,
    shortened,
    width_of,
)
from clipbench.reporting.figures.scale import Scale, scale

WIDTH, ROW, TOP = 400.0, 38.0, 26.0
LOOKS = {
    verdicts.BEST: ("green", "circle"),
    verdicts.TIED: ("green", "circle"),
    verdicts.BETTER: ("green", "circle"),
    verdicts.WORSE: ("orange", "diamond"),
}
OTHERS = ("gray", "ring")


def figure(setting: Setting) -> Figure | None:
    """One drawing with a line an arm, in the order of the comparison."""
    rows = [(row, row.contrast) for row in setting.main if row.contrast]
    if not rows:
        return None
    labels = min(180.0, max(_width(row, contrast, setting) for row, contrast in rows) + 14)
    x = _scale(setting, [contrast for _, contrast in rows], labels)
    bottom = TOP + ROW * len(rows)
    shapes = [*_axes(setting, x, bottom)]
    for number, (row, contrast) in enumerate(rows):
        shapes += _line(setting, row, contrast, x, TOP + ROW * (number + 0.5))
    description = "; ".join(f"{row.label} {_number(contrast, row, setting)}, {row.verdict}" for row, contrast in rows)
    drawing = Drawing(WIDTH, bottom + 44, tuple(shapes), f"Differences to {setting.baseline}", f"{description}.")
    return Figure("differences", f"How far is each strategy from {setting.baseline}?", _caption(setting), (drawing,), 1)


def _caption(setting: Setting) -> str:
    margin = (
        " The gray ground is the margin within which a difference does not matter; for `no effect` the 90 % interval "
        "must lie in it."
    )
    return (
        f"Difference in {setting.metric.name} paired by seed, with its 95 % t interval; to the right is better."
        f"{margin if setting.margin else ''} ● better than the baseline, ◆ worse, ○ neither shown."
    )


def _scale(setting: Setting, contrasts: list[Contrast], left: float) -> Scale:
    factor = numbers.scale(setting.metric)
    ends = [factor * end for c in contrasts for end in (c.difference.low, c.difference.high, c.difference.mean)]
    margin = factor * (setting.margin or 0.0)
    return scale([0.0, *ends, -margin, margin], left, WIDTH - 8)


def _width(row: ArmResult, contrast: Contrast, setting: Setting) -> float:
    return max(width_of(row.label), width_of(_number(contrast, row, setting), SMALL))


def _axes(setting: Setting, x: Scale, bottom: float) -> Iterator[Shape]:
    if setting.margin:
        edge = numbers.scale(setting.metric) * setting.margin
        width = max(1.0, x(edge) - x(-edge))
        yield Area(rectangle(x(-edge), TOP - 4, width, bottom - TOP + 4), "gray", 0.22)
    for value, text in x.ticks:
        yield Line(((x(value), TOP - 4), (x(value), bottom)), "grid", 1)
        yield Words(x(value), bottom + 16, text, "middle", SMALL, color="muted")
    yield Line(((x(0), TOP - 4), (x(0), bottom)), "ink", 1.2)
    unit = f"{setting.metric.name} compared with {setting.versus}{numbers.difference_unit(setting.metric)}"
    yield Words((x.start + x.end) / 2, bottom + 34, unit, "middle", SMALL, color="muted")
    yield Words(x(0) - 7, 12, "◂ worse", "end", SMALL, color="muted")
    yield Words(x(0) + 7, 12, "better ▸", "start", SMALL, color="muted")


def _line(setting: Setting, row: ArmResult, contrast: Contrast, x: Scale, height: float) -> Iterator[Shape]:
    factor, difference = numbers.scale(setting.metric), contrast.difference
    color, shape = LOOKS.get(row.verdict, OTHERS)
    yield Words(0, height - 2, shortened(row.label, x.start - 8), bold=row.verdict == verdicts.BEST)
    yield Words(0, height + 12, _number(contrast, row, setting), size=SMALL, color="muted")
    if math.isfinite(difference.low):
        yield Line(((x(factor * difference.low), height), (x(factor * difference.high), height)), color, 2)
    if math.isfinite(difference.mean):
        title = f"{row.label}: {_number(contrast, row, setting)}, {numbers.p_clause(contrast.p_holm)}, {row.verdict}"
        yield Mark(x(factor * difference.mean), height, color, shape, 5, title)


def _number(contrast: Contrast, row: ArmResult, setting: Setting) -> str:
    if not contrast.difference.n:
        return f"diverged {numbers.diverged(row)}" if row.diverged else "no pair finished"
    return numbers.interval(contrast.difference, setting.metric)
