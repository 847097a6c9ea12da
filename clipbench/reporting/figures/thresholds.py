"""How much the threshold matters: the metric and the share of clipped steps over the thresholds of each strategy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clipbench.analysis import verdicts
from clipbench.analysis.plateau import plateau, thresholds
from clipbench.analysis.report_model import ArmResult, Setting
from clipbench.reporting import numbers
from clipbench.reporting.figures.chart_axes import Axes, Scale, scale, shown, spans_decades, tick_label
from clipbench.reporting.figures.drawing import SMALL, Figure, Panel, shortened

WIDTH, HEIGHT, LEFT, RIGHT = 330.0, 296.0, 44.0, 318.0
TOP, MIDDLE = 46.0, 164.0  # of the upper axes
MOST_NAMED = 7  # thresholds that the axis names


def figure(setting: Setting) -> Figure | None:
    """A panel for each strategy that was tried at several thresholds."""
    every = {name: thresholds(setting, name) for name in dict.fromkeys(row.strategy for row in setting.rows)}
    strategies = {
        name: rows for name, rows in every.items() if len(rows) > 1 and any(math.isfinite(r.value.mean) for r in rows)
    }
    if not strategies:
        return None
    baseline = f" The gray band is {setting.baseline}, the baseline." if setting.baseline else ""
    chosen = " ◆ is the threshold chosen on validation." if setting.metric.criterion else ""
    caption = (
        f"Mean {setting.metric.name} over seeds with its 95 % interval at each threshold.{baseline}{chosen} The green "
        "band marks the plateau: thresholds within one standard error of the best. × diverged on every seed. "
        "Below: the share of steps on which the rule changed the gradient."
    )
    y = _y([row for row in setting.rows if row.strategy in strategies or row.verdict == verdicts.BASELINE], setting)
    panels = tuple(_panel(setting, name, rows, y) for name, rows in strategies.items())
    return Figure("thresholds", "How much does the threshold matter?", caption, panels)


def _y(rows: Sequence[ArmResult], setting: Setting) -> Scale:
    """One scale for all strategies, so that they can be compared."""
    values = [value for row in rows for value in shown(row.value, setting.metric) if math.isfinite(value)]
    if setting.metric.is_share:
        known = [min(100.0, max(0.0, value)) for value in values]
        # The distance to 100 % is shown where it takes no more room than the differences.
        reaches = known and 100.0 - max(known) <= max(known) - min(known)
        return scale([*known, 100.0] if reaches else known, MIDDLE, TOP)
    return scale(values, MIDDLE, TOP, log=spans_decades([shown(row.value, setting.metric)[1] for row in rows]))


def _panel(setting: Setting, strategy: str, rows: Sequence[ArmResult], y: Scale) -> Panel:
    fired = "; ".join(f"{tick_label(row.threshold or 0.0)}: {_words(row, setting)}" for row in rows)
    description = f"{numbers.unit(setting.metric)} by threshold: {fired}."
    panel = Panel(WIDTH, HEIGHT, f"Thresholds of {strategy}", description, strategy)
    xs = [row.threshold or 0.0 for row in rows]
    x = scale(xs, LEFT, RIGHT, log=min(xs) > 0)
    x = x.at(xs) if len(xs) <= MOST_NAMED else x
    level = [x(row.threshold or 0.0) for row in plateau(setting, strategy)]
    if level:
        left, right = max(LEFT, level[0] - 9), min(RIGHT, level[-1] + 9)
        panel.box(left, TOP, right - left, MIDDLE - TOP, "green", 0.14)
    _metric(setting, rows, Axes(panel, x, y, f"{numbers.unit(setting.metric)}{', log axis' if y.log else ''}"))
    share = Axes(
        panel, x, Scale(0, 100, 252, 204), "steps clipped %", f"threshold of {shortened(strategy, 180, SMALL)}"
    )
    points = [(row.threshold or 0.0, 100 * row.fired_share) for row in rows]
    share.line(points, "blue")
    for place, value in points:
        if math.isfinite(value):
            share.mark(place, value, "blue", size=3)
    return panel


def _metric(setting: Setting, rows: Sequence[ArmResult], axes: Axes) -> None:
    for row in setting.rows:
        if row.verdict == verdicts.BASELINE and math.isfinite(row.value.mean):
            axes.level(*shown(row.value, setting.metric))
    axes.line([(row.threshold or 0.0, shown(row.value, setting.metric)[1]) for row in rows], "blue")
    for row in rows:
        x, (low, mean, high) = row.threshold or 0.0, shown(row.value, setting.metric)
        title = f"{row.arm}: {setting.metric.name} {_words(row, setting)}"
        title += f", diverged {numbers.diverged(row)}" if row.diverged else ""
        if not math.isfinite(mean):
            axes.mark(x, axes.y.low, "orange", "cross", title, 5)
            continue
        axes.interval(x, low, high, "blue")
        is_chosen = row.shown and setting.metric.criterion
        axes.mark(x, mean, *(("orange", "diamond") if is_chosen else ("blue", "circle")), title)


def _words(row: ArmResult, setting: Setting) -> str:
    return f"{numbers.estimate(row.value, setting.metric)}, clipped {numbers.share(row.fired_share)}"
