"""How training went, for each arm: loss and validation measure, and the gradient norm before and after clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clipbench.analysis import verdicts
from clipbench.analysis.curves import LOSS, NORMS, ArmCurves, Curve, CurvesByArm
from clipbench.analysis.report_model import ArmResult, Setting
from clipbench.reporting.figures.chart_axes import Axes, Scale, scale, spans_decades
from clipbench.reporting.figures.drawing import Figure, Panel

WIDTH, LEFT, RIGHT = 330.0, 44.0, 318.0
TOPS = (46, 184)  # of the axes for the loss and for the validation measure
Known = Sequence[tuple[ArmResult, ArmCurves]]


def learning(setting: Setting, curves: CurvesByArm) -> Figure | None:
    """A panel for each arm: training loss, and below it the validation measure, with the baseline behind."""
    known = _known(setting, curves)
    measures = [LOSS, *([setting.metric.criterion] if setting.metric.criterion else [])]
    measures = [name for name in measures if any(name in arm.curves for _, arm in known)]
    if not measures:
        return None
    scales = [_scales(name, known, top) for name, top in zip(measures, TOPS, strict=False)]
    baseline = next((arm for row, arm in known if row.verdict == verdicts.BASELINE), None)
    panels = []
    for row, arm in [pair for pair in known if pair[1] is not baseline] or known:
        panel = _panel(f"Learning curves of {row.arm}", row, arm, measures, TOPS[len(measures) - 1] + 148)
        for name, (x, y) in zip(measures, scales, strict=True):
            unit = f"{name} %" if _factor(name) == 100 else f"{name}{', log axis' if y.log else ''}"
            axes = Axes(panel, x, y, unit, "epoch" if name == measures[-1] else "")
            if baseline and baseline is not arm:
                _curve(axes, baseline.curves.get(name), _factor(name), "gray", "5 3")
            _curve(axes, arm.curves.get(name), _factor(name), "blue")
        panels.append(panel)
    dashed = f" Dashed gray: {setting.baseline}." if baseline else ""
    caption = (
        f"Median over seeds and the range from 10 to 90 % of them.{dashed} The curve of a diverged trial ends where "
        "it diverged; that of an arm that always diverged may leave the axes."
    )
    return Figure("curves", "How did training go?", caption, tuple(panels))


def norms(setting: Setting, curves: CurvesByArm) -> Figure | None:
    """A panel for each arm: the gradient norm before and after clipping, on a log axis."""
    known = [(row, arm) for row, arm in _known(setting, curves) if set(NORMS) <= set(arm.curves)]
    if not known:
        return None
    values = [value for arm in _steady(known) for name in NORMS for value in arm.curves[name].values]
    x = Scale(0, max(x for _, arm in known for x in arm.curves[NORMS[0]].x.tolist()), LEFT, RIGHT)
    y = scale(values, 180, TOPS[0], log=True)
    panels = []
    for row, arm in known:
        panel = _panel(f"Gradient norm of {row.arm}", row, arm, NORMS, 224)
        axes = Axes(panel, x, y, "gradient norm, log axis", "step")
        for name, color, dash in zip(NORMS, ("orange", "blue"), ("5 3", ""), strict=True):
            _curve(axes, arm.curves[name], 1, color, dash)
        panels.append(panel)
    caption = (
        "Dashed orange: before clipping; blue: after it. Median over all seeds and steps of a window, and the "
        "range from 10 to 90 %. Where both are equal, the rule did nothing."
    )
    return Figure("norms", "What did clipping do to the gradient?", caption, tuple(panels))


def _known(setting: Setting, curves: CurvesByArm) -> Known:
    return [(row, curves[row.ids]) for row in setting.main if row.ids in curves]


def _steady(known: Known) -> list[ArmCurves]:
    """The curves that the axes must hold: an arm that always diverges may leave them, or hide the others."""
    return [arm for row, arm in known if row.diverged < row.trials] or [arm for _, arm in known]


def _panel(title: str, row: ArmResult, arm: ArmCurves, names: Sequence[str], height: float) -> Panel:
    ends = [f"{name} {_first_last(arm.curves[name], _factor(name))}" for name in names if name in arm.curves]
    return Panel(WIDTH, height, title, f"Medians from first to last: {'; '.join(ends)}.", row.arm)


def _scales(name: str, known: Known, top: float) -> tuple[Scale, Scale]:
    xs = [x for _, arm in known if name in arm.curves for x in arm.curves[name].x.tolist()]
    curves = [arm.curves[name] for arm in _steady(known) if name in arm.curves]
    curves = curves or [arm.curves[name] for _, arm in known if name in arm.curves]
    values = [_factor(name) * value for curve in curves for value in curve.values]
    y = scale(values, top + 104, top, log=_factor(name) == 1 and spans_decades(values))
    return Scale(min(xs) if max(xs) > min(xs) else 0, max(xs), LEFT, RIGHT), y


def _curve(axes: Axes, curve: Curve | None, factor: int, color: str, dash: str = "") -> None:
    if curve is None:
        return
    x, low, middle, high = (curve.x, *(factor * values for values in (curve.low, curve.middle, curve.high)))
    if color != "gray" and middle[0] > axes.y.high:
        axes.panel.text(axes.x.start + 6, axes.y.end + 14, "↑ above the axis")
    axes.band(x.tolist(), low.tolist(), high.tolist(), color)
    axes.line(zip(x.tolist(), middle.tolist(), strict=True), color, dash=dash)


def _factor(name: str) -> int:
    return 100 if name.endswith("accuracy") else 1


def _first_last(curve: Curve, factor: int) -> str:
    known = curve.middle[[math.isfinite(value) for value in curve.middle]]
    return f"{factor * known[0]:.3g} to {factor * known[-1]:.3g}" if known.size else "never finite"
