"""How training went: loss and validation, and the gradient norm before and after clipping, arm by arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from clipbench.analysis import verdicts
from clipbench.analysis.curves import LOSS, NORMS, ArmCurves, Curve, CurvesByArm
from clipbench.analysis.report_model import ArmResult, Setting
from clipbench.reporting.figures.drawing import SMALL, TITLE, Drawing, Figure, Shape, Words, shortened
from clipbench.reporting.figures.panel import Panel
from clipbench.reporting.figures.scale import Scale, scale, spans_decades

WIDTH = 330.0
LEFT, RIGHT = 44.0, 318.0
BEHIND = "gray"  # the baseline
LEARNING_HEIGHT, NORM_HEIGHT = 332.0, 224.0
Draw = Callable[[ArmResult, ArmCurves], Drawing]


def learning(setting: Setting, courses: CurvesByArm) -> Figure | None:
    """Training loss, and below it the validation measure, a drawing an arm with the baseline behind it."""
    known = _known(setting, courses)
    measures = [LOSS, *([setting.metric.criterion] if setting.metric.criterion else [])]
    measures = [name for name in measures if any(name in course.curves for _, course in known)]
    if not measures:
        return None
    behind = next((course for row, course in known if row.verdict == verdicts.BASELINE), None)
    panels = [
        _panel(name, known, top, last=name == measures[-1]) for name, top in zip(measures, (46, 184), strict=False)
    ]

    def draw(row: ArmResult, course: ArmCurves) -> Drawing:
        shapes: list[Shape] = [_title(row)]
        for name, panel in zip(measures, panels, strict=True):
            shapes += panel.axes()
            if behind and behind is not course:
                shapes += _curve(panel, name, behind, BEHIND, dash="5 3")
            shapes += _curve(panel, name, course, "blue")
        height = LEARNING_HEIGHT if len(measures) > 1 else LEARNING_HEIGHT - 138
        return Drawing(WIDTH, height, tuple(shapes), f"Learning curves of {row.label}", _ends(measures, course))

    baseline = f" Dashed gray: {setting.baseline}." if behind else ""
    caption = (
        f"Median over seeds and the range from 10 to 90 % of them.{baseline} A diverged trial ends where it diverged; "
        "an arm that always diverged may leave the axes."
    )
    return _figure("curves", "How did training go?", caption, known, draw)


def norms(setting: Setting, courses: CurvesByArm) -> Figure | None:
    """The gradient norm before and after the rule, on a log axis."""
    known = [(row, course) for row, course in _known(setting, courses) if set(NORMS) <= set(course.curves)]
    if not known:
        return None
    values = [value for course in _steady(known) for name in NORMS for value in course.curves[name].values if value > 0]
    steps = [x for _, course in known for x in course.curves[NORMS[0]].x.tolist()]
    y = scale(values, 180, 46, log=True)
    panel = Panel(Scale(0, max(steps), LEFT, RIGHT), y, "gradient norm", "step")

    def draw(row: ArmResult, course: ArmCurves) -> Drawing:
        shapes = [_title(row), *panel.axes()]
        for name, color, dash in zip(NORMS, ("orange", "blue"), ("5 3", ""), strict=True):
            shapes += _curve(panel, name, course, color, dash=dash)
        return Drawing(WIDTH, NORM_HEIGHT, tuple(shapes), f"Gradient norm of {row.label}", _ends(NORMS, course))

    caption = (
        "Dashed orange: before clipping; blue: after it. Median over all seeds and steps of a window, and the "
        "range from 10 to 90 %. Where both are one, the rule did nothing."
    )
    return _figure("norms", "What did clipping do to the gradient?", caption, known, draw)


def _known(setting: Setting, courses: CurvesByArm) -> list[tuple[ArmResult, ArmCurves]]:
    return [(row, courses[row.ids]) for row in setting.main if row.ids in courses]


def _steady(known: Sequence[tuple[ArmResult, ArmCurves]]) -> list[ArmCurves]:
    """What the axes must hold: an arm that always diverges may leave them, or the others could not be read."""
    courses = [course for row, course in known if row.diverged < row.trials]
    return courses or [course for _, course in known]


def _figure(name: str, title: str, caption: str, known: Sequence[tuple[ArmResult, ArmCurves]], draw: Draw) -> Figure:
    """The baseline stands behind the others, and has a drawing of its own only where it is alone."""
    others = [pair for pair in known if pair[0].verdict != verdicts.BASELINE or name == "norms"] or known
    return Figure(name, title, caption, tuple(draw(*pair) for pair in others))


def _title(row: ArmResult) -> Words:
    return Words(0, 14, shortened(row.label, WIDTH, TITLE), size=TITLE, bold=True)


def _panel(name: str, known: Sequence[tuple[ArmResult, ArmCurves]], top: float, *, last: bool) -> Panel:
    curves = [course.curves[name] for _, course in known if name in course.curves]
    factor = _factor(name)
    steady = [course.curves[name] for course in _steady(known) if name in course.curves] or curves
    values = [factor * value for curve in steady for value in curve.values if math.isfinite(value)]
    end = max(x for curve in curves for x in curve.x.tolist())
    start = min(x for curve in curves for x in curve.x.tolist())
    log = not name.endswith("accuracy") and spans_decades(values)
    y = scale(values, top + 104, top, log=log)
    unit = f"{name} %" if factor == 100 else f"{name}{', log axis' if log else ''}"
    return Panel(Scale(start if end > start else 0, end, LEFT, RIGHT), y, unit, "epoch" if last else "")


def _curve(panel: Panel, name: str, course: ArmCurves, color: str, dash: str = "") -> Iterator[Shape]:
    curve = course.curves.get(name)
    if curve is None:
        return
    factor = _factor(name)
    if color != BEHIND and factor * curve.middle[0] > panel.y.high:
        yield Words(panel.x.start + 6, panel.y.end + 14, "↑ above the axis", size=SMALL, color="muted")
    yield from panel.band(curve.x.tolist(), (factor * curve.low).tolist(), (factor * curve.high).tolist(), color)
    yield from panel.line(curve.x.tolist(), (factor * curve.middle).tolist(), color, dash=dash)


def _factor(name: str) -> int:
    return 100 if name.endswith("accuracy") else 1


def _ends(names: Sequence[str], course: ArmCurves) -> str:
    words = [f"{name} {_first_last(course.curves[name], _factor(name))}" for name in names if name in course.curves]
    return f"Medians from the first to the last place: {'; '.join(words)}."


def _first_last(curve: Curve, factor: int) -> str:
    known = curve.middle[[math.isfinite(value) for value in curve.middle]]
    return f"{factor * known[0]:.3g} to {factor * known[-1]:.3g}" if known.size else "never finite"
