"""How the best threshold moves with something else that was varied, such as the learning rate: a map per strategy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from clipbench.analysis import verdicts
from clipbench.analysis.plateau import thresholds
from clipbench.analysis.report_model import ArmResult, Report, Setting
from clipbench.reporting import numbers
from clipbench.reporting.figures.chart_axes import spans_decades, tick_label
from clipbench.reporting.figures.drawing import SMALL, Figure, Panel, left_margin, shortened, width_of

WIDTH, ROW, TOP, GAP = 330.0, 30.0, 28.0, 6.0
FAINTEST, STRONGEST, DARK = 0.06, 0.9, 0.72  # opacities; text on tiles above DARK is light
FIRST = ("lr", "optimizer")  # axes that are drawn rather than others


@dataclass(frozen=True)
class Family:
    """Settings that differ in one axis alone."""

    axis: str
    shared: str  # what they have in common, where there are several families
    settings: tuple[Setting, ...]

    def columns(self, strategy: str) -> list[float]:
        return sorted({r.threshold or 0.0 for setting in self.settings for r in thresholds(setting, strategy)})

    @cached_property
    def ends(self) -> tuple[float, float, bool]:
        """The worst and the best mean of all settings, and whether only their logarithms can be told apart."""
        metric = self.settings[0].metric
        means = [row.value.mean for setting in self.settings for row in setting.rows if math.isfinite(row.value.mean)]
        low, high = min(means), max(means)
        if metric.higher_is_better:
            return low, high, False
        return high, low, spans_decades(means)

    def opacity(self, value: float) -> float:
        """The best is darkest, whatever the direction of the metric."""
        worst, best, is_log = self.ends
        if is_log:
            worst, best, value = math.log(worst), math.log(best), math.log(value)
        return FAINTEST + (STRONGEST - FAINTEST) * ((value - worst) / (best - worst) if best != worst else 1.0)


def figures(report: Report) -> list[Figure]:
    """A figure for each family of settings that was tried at several thresholds."""
    drawn = [_figure(family, number) for number, family in enumerate(_families(report))]
    return [figure for figure in drawn if figure]


def _families(report: Report) -> Iterator[Family]:
    every = [setting for setting in report.settings if not setting.tuned]
    axis = _axis(every)
    groups: dict[tuple[tuple[str, str], ...], list[Setting]] = {}
    for setting in every:
        others = tuple((name, value) for name, value in setting.axes.items() if name != axis)
        groups.setdefault(others, []).append(setting)
    for others, settings in groups.items():
        if axis and len(settings) > 1 and len({setting.metric.name for setting in settings}) == 1:
            yield Family(axis, ", ".join(f"{name}={value}" for name, value in others), tuple(settings))


def _axis(settings: Sequence[Setting]) -> str | None:
    """The learning rate or the optimizer, else the first axis whose values are numbers, else none."""
    names = list(dict.fromkeys(name for setting in settings for name in setting.axes))
    numeric = [name for name in names if all(_is_number(setting.axes.get(name, "")) for setting in settings)]
    return next((name for name in (*FIRST, *numeric) if name in names), None)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _figure(family: Family, number: int) -> Figure | None:
    every = dict.fromkeys(row.strategy for setting in family.settings for row in setting.rows)
    strategies = [name for name in every if len(family.columns(name)) > 1]
    if not strategies:
        return None
    metric = family.settings[0].metric
    chosen = " ◆ is the threshold chosen on validation in its row." if metric.criterion else ""
    caption = (
        f"Mean {numbers.unit(metric)} over seeds; the darker the better "
        f"({'higher' if metric.higher_is_better else 'lower'} is better), on one scale for all maps.{chosen} "
        "× diverged on every seed. The first column is the baseline of the row."
    )
    title = f"How does the threshold move with {family.axis}?" + f" ({family.shared})" * bool(family.shared)
    name = f"heat-{number + 1}" if number else "heat"
    return Figure(name, title, caption, tuple(_panel(family, strategy) for strategy in strategies))


def _panel(family: Family, strategy: str) -> Panel:
    columns = family.columns(strategy)
    names = [shortened(setting.axes[family.axis], 76, SMALL) for setting in family.settings]
    left, bottom = max(24.0, left_margin(names, WIDTH, size=SMALL)), TOP + ROW * len(names)
    width = (WIDTH - left - GAP) / (len(columns) + 1)
    panel = Panel(
        WIDTH, bottom + 40, f"{strategy}: {family.axis} by threshold", _description(family, strategy), strategy
    )
    edges = [left, *(left + width * place + GAP for place in range(1, len(columns) + 1))]
    for number, (name, setting) in enumerate(zip(names, family.settings, strict=True)):
        y = TOP + ROW * number
        panel.text(left - 6, y + ROW / 2 + 4, name, "end")
        rows = {row.threshold: row for row in thresholds(setting, strategy)}
        baseline = next((row for row in setting.rows if row.verdict == verdicts.BASELINE), None)
        for x, row in zip(edges, [baseline, *(rows.get(value) for value in columns)], strict=True):
            if row:
                _tile(panel, family, setting, row, x, y, width - 2, is_chosen=row is not baseline and row.shown)
    free = -math.inf
    for x, text in zip(edges, ["base", *(tick_label(float(f"{value:.3g}")) for value in columns)], strict=True):
        middle, half = x + width / 2 - 1, width_of(text, SMALL) / 2
        if middle - half > free and middle + half <= WIDTH + 1:
            panel.text(middle, bottom + 14, text, "middle")
            free = middle + half + 3
    panel.text((left + WIDTH) / 2, bottom + 32, f"threshold of {shortened(strategy, 180, SMALL)}", "middle")
    return panel


def _tile(
    panel: Panel, family: Family, setting: Setting, row: ArmResult, x: float, y: float, width: float, *, is_chosen: bool
) -> None:
    mean, metric, height = row.value.mean, setting.metric, ROW - 2
    title = f"{row.arm}, {setting.label}: {metric.name} {numbers.estimate(row.value, metric)}"
    title += f", diverged {numbers.diverged(row)}" if row.diverged else ""
    if not math.isfinite(mean):
        panel.box(x, y, width, height, "orange", 0.25, title)
        panel.mark(x + width / 2, y + height / 2, "orange", "cross", title, 5)
        return
    opacity = family.opacity(mean)
    ink = "paper" if opacity > DARK else "ink"
    panel.box(x, y, width, height, "blue", opacity, title)
    text = numbers.number(numbers.scale(metric) * mean)
    if width_of(text, SMALL) <= width - 2:
        panel.text(x + width / 2, y + height / 2 + 4, text, "middle", color=ink)
    if is_chosen and metric.criterion:
        panel.mark(x + 6, y + 6, ink, "diamond", title, 3)


def _description(family: Family, strategy: str) -> str:
    parts = []
    for setting in family.settings:
        rows = [row for row in thresholds(setting, strategy) if math.isfinite(row.value.mean)]
        if rows:
            best = max(rows, key=lambda row: setting.metric.sign * row.value.mean)
            value = numbers.estimate(best.value, setting.metric)
            where = f"{family.axis} {setting.axes[family.axis]}"
            parts.append(f"{where}: best at {tick_label(best.threshold or 0.0)}, {value}")
    return f"{'; '.join(parts)}."
