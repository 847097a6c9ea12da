"""How much the threshold matters: the metric and the share of steps clipped over each strategy's thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from clipbench.analysis import verdicts
from clipbench.analysis.plateau import plateau, thresholds
from clipbench.analysis.report_model import ArmResult, Setting
from clipbench.reporting import numbers
from clipbench.reporting.figures.drawing import SMALL, TITLE, Area, Drawing, Figure, Shape, Words, rectangle, shortened
from clipbench.reporting.figures.panel import Panel
from clipbench.reporting.figures.scale import Scale, label, scale, spans_decades

WIDTH, HEIGHT = 330.0, 296.0
LEFT, RIGHT = 44.0, 318.0
MOST_NAMED = 7


def figure(setting: Setting) -> Figure | None:
    """A drawing for each strategy that was tried at several thresholds."""
    strategies = [s for s in dict.fromkeys(row.strategy for row in setting.rows) if len(thresholds(setting, s)) > 1]
    strategies = [s for s in strategies if any(math.isfinite(row.value.mean) for row in thresholds(setting, s))]
    if not strategies:
        return None
    shown = [row for row in setting.rows if row.strategy in strategies or row.verdict == verdicts.BASELINE]
    cells = tuple(_cell(setting, strategy, _heights(setting, shown)) for strategy in strategies)
    return Figure("thresholds", "How much does the threshold matter?", _caption(setting), cells)


def _caption(setting: Setting) -> str:
    band = f" The gray band is {setting.baseline}, the baseline." if setting.baseline else ""
    chosen = " ◆ is the threshold chosen on validation." if setting.metric.criterion else ""
    return (
        f"Mean {setting.metric.name} over seeds with its 95 % interval at each threshold.{band}{chosen} The green "
        "ground marks the plateau: thresholds within one standard error of the best. × diverged on every seed. "
        "Below: the share of steps on which the rule fired."
    )


def _heights(setting: Setting, rows: Sequence[ArmResult]) -> Scale:
    """One scale for all strategies, so that they can be compared."""
    factor = numbers.scale(setting.metric)
    ends = [factor * end for row in rows for end in (row.value.low, row.value.high)]
    means = [factor * row.value.mean for row in rows]
    if setting.metric.is_share:
        known = [min(100.0, max(0.0, value)) for value in (*ends, *means) if math.isfinite(value)]
        room = max(known, default=0.0) - min(known, default=0.0)
        # How far all are from 100 % is worth seeing where it takes no more room than what they differ in.
        return scale([*known, 100.0] if known and 100.0 - max(known) <= room else known, 164, 46)
    return scale([*ends, *means], 164, 46, log=spans_decades(means))


def _widths(values: Sequence[float]) -> Scale:
    """A log axis that names the thresholds themselves, as long as they are few."""
    found = scale(values, LEFT, RIGHT, log=min(values) > 0)
    return replace(found, marks=tuple(values)) if len(values) <= MOST_NAMED else found


def _cell(setting: Setting, strategy: str, heights: Scale) -> Drawing:
    rows = thresholds(setting, strategy)
    x = _widths([row.threshold or 0.0 for row in rows])
    above = Panel(x, heights, numbers.unit(setting.metric))
    below = Panel(x, Scale(0, 100, 252, 204), "steps clipped %", f"threshold of {shortened(strategy, 180, SMALL)}")
    shapes = [
        Words(0, 14, shortened(strategy, WIDTH, TITLE), size=TITLE, bold=True),
        *_plateau(setting, strategy, x),
        *above.axes(),
        *below.axes(),
        *_baseline(setting, above),
        *_means(setting, rows, above),
        *below.line(*_fired(rows), "blue"),
        *(below.mark(x_, y_, "blue", size=3) for x_, y_ in zip(*_fired(rows), strict=True) if math.isfinite(y_)),
    ]
    return Drawing(WIDTH, HEIGHT, tuple(shapes), f"Thresholds of {strategy}", _description(setting, rows))


def _plateau(setting: Setting, strategy: str, x: Scale) -> Iterator[Shape]:
    level = [x(row.threshold) for row in plateau(setting, strategy) if row.threshold is not None]
    if level:
        left, right = max(LEFT, level[0] - 9), min(RIGHT, level[-1] + 9)
        yield Area(rectangle(left, 46, right - left, 118), "green", 0.14)


def _baseline(setting: Setting, panel: Panel) -> Iterator[Shape]:
    factor = numbers.scale(setting.metric)
    for row in setting.rows:
        if row.verdict == verdicts.BASELINE and math.isfinite(row.value.mean):
            if math.isfinite(row.value.low):
                yield panel.across(factor * row.value.low, factor * row.value.high, "gray")
            yield panel.level(factor * row.value.mean, "muted")


def _means(setting: Setting, rows: Sequence[ArmResult], panel: Panel) -> Iterator[Shape]:
    factor = numbers.scale(setting.metric)
    places = [row.threshold or 0.0 for row in rows]
    yield from panel.line(places, [factor * row.value.mean for row in rows], "blue")
    for place, row in zip(places, rows, strict=True):
        mean, title = factor * row.value.mean, _words(row, setting)
        if not math.isfinite(mean):
            yield panel.mark(place, panel.y.low, "orange", "cross", title, 5)
            continue
        yield from panel.upright(place, factor * row.value.low, factor * row.value.high, "blue")
        chosen = row.shown and setting.metric.criterion
        yield panel.mark(place, mean, "orange" if chosen else "blue", "diamond" if chosen else "circle", title)


def _fired(rows: Sequence[ArmResult]) -> tuple[list[float], list[float]]:
    return [row.threshold or 0.0 for row in rows], [100 * row.fired_share for row in rows]


def _words(row: ArmResult, setting: Setting) -> str:
    text = f"{row.label}: {setting.metric.name} {numbers.estimate(row.value, setting.metric)}"
    text += f", clipped {numbers.share(row.fired_share)}"
    return f"{text}, diverged {numbers.diverged(row)}" if row.diverged else text


def _description(setting: Setting, rows: Sequence[ArmResult]) -> str:
    points = "; ".join(
        f"{label(row.threshold or 0.0)}: {numbers.estimate(row.value, setting.metric)}, "
        f"clipped {numbers.share(row.fired_share)}"
        for row in rows
    )
    return f"{numbers.unit(setting.metric)} by threshold: {points}."
