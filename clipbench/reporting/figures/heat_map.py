"""How the best threshold moves with something else that was varied, such as the learning rate: a map a strategy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clipbench.analysis import verdicts
from clipbench.analysis.plateau import thresholds
from clipbench.analysis.report_model import ArmResult, Report, Setting
from clipbench.reporting import numbers
from clipbench.reporting.figures.drawing import (
    SMALL,
    TITLE,
    Area,
    Drawing,
    Figure,
    Mark,
    Shape,
    Words,
    rectangle,
    shortened,
    width_of,
)
from clipbench.reporting.figures.scale import label, spans_decades

WIDTH, ROW, TOP = 330.0, 30.0, 28.0
FAINTEST, STRONGEST, DARK = 0.06, 0.9, 0.72
FIRST = ("lr", "optimizer")  # of several axes, the one that is asked for most


@dataclass(frozen=True)
class Family:
    """Settings that differ in one axis alone."""

    axis: str
    shared: str  # what they have in common, where there are several families
    settings: tuple[Setting, ...]


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
            shared = ", ".join(f"{name}={value}" for name, value in others)
            yield Family(axis, shared, tuple(settings))


def _axis(settings: Sequence[Setting]) -> str | None:
    """The learning rate or the optimizer, else the first axis that is made of numbers, else none."""
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
    strategies = [name for name in every if len(_columns(family, name)) > 1]
    if not strategies:
        return None
    strength = _strength(family)
    cells = tuple(_cell(family, name, strength) for name in strategies)
    words = f" ({family.shared})" if family.shared else ""
    measured = family.settings[0].metric
    chosen = " ◆ is the threshold chosen on validation in its row." if measured.criterion else ""
    better = "higher" if measured.higher_is_better else "lower"
    caption = (
        f"Mean {numbers.unit(measured)} over seeds; the stronger the better ({better} is better), on one scale for "
        f"all maps.{chosen} × diverged on every seed. The first column is the baseline of the row."
    )
    name = f"heat-{number + 1}" if number else "heat"
    return Figure(name, f"How does the threshold move with {family.axis}?{words}", caption, cells)


def _columns(family: Family, strategy: str) -> list[float]:
    known = {row.threshold for setting in family.settings for row in thresholds(setting, strategy)}
    return sorted(value for value in known if value is not None)


@dataclass(frozen=True)
class Strength:
    """From a value to how dark it is drawn: the best is darkest, whatever the direction of the metric."""

    worst: float
    best: float
    log: bool

    def __call__(self, value: float) -> float:
        worst, best, here = (math.log(each) if self.log else each for each in (self.worst, self.best, value))
        share = (here - worst) / (best - worst) if best != worst else 1.0
        return FAINTEST + (STRONGEST - FAINTEST) * min(1.0, max(0.0, share))


def _strength(family: Family) -> Strength:
    values = [row.value.mean for setting in family.settings for row in setting.rows if math.isfinite(row.value.mean)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    is_higher = family.settings[0].metric.higher_is_better
    return Strength(low if is_higher else high, high if is_higher else low, not is_higher and spans_decades(values))


def _cell(family: Family, strategy: str, strength: Strength) -> Drawing:
    columns = _columns(family, strategy)
    names = [shortened(setting.axes[family.axis], 76, SMALL) for setting in family.settings]
    left = max(24.0, *(width_of(name, SMALL) + 10 for name in names))
    gap = 6.0
    width = (WIDTH - left - gap) / (len(columns) + 1)
    bottom = TOP + ROW * len(names)
    shapes: list[Shape] = [Words(0, 14, shortened(strategy, WIDTH, TITLE), size=TITLE, bold=True)]
    for number, (name, setting) in enumerate(zip(names, family.settings, strict=True)):
        height = TOP + ROW * number
        shapes.append(Words(left - 6, height + ROW / 2 + 4, name, "end", SMALL, color="muted"))
        rows = {row.threshold: row for row in thresholds(setting, strategy)}
        baseline = next((row for row in setting.rows if row.verdict == verdicts.BASELINE), None)
        for place, row in enumerate([baseline, *(rows.get(value) for value in columns)]):
            if row:
                x = left + width * place + (gap if place else 0.0)
                shapes += _tile(row, setting, strength, rectangle(x, height, width - 2, ROW - 2), is_first=place == 0)
    shapes += _ticks(columns, left, width, gap, bottom, f"threshold of {shortened(strategy, 180, SMALL)}")
    title = f"{strategy}: {family.axis} by threshold"
    return Drawing(WIDTH, bottom + 40, tuple(shapes), title, _description(family, strategy))


def _tile(
    row: ArmResult, setting: Setting, strength: Strength, box: tuple[tuple[float, float], ...], *, is_first: bool
) -> Iterator[Shape]:
    (left, top), (right, bottom) = box[0], box[2]
    x, y = (left + right) / 2, (top + bottom) / 2
    title = f"{row.label}, {setting.label}: {setting.metric.name} {numbers.estimate(row.value, setting.metric)}"
    title += f", diverged {numbers.diverged(row)}" if row.diverged else ""
    if not math.isfinite(row.value.mean):
        yield Area(box, "orange", 0.25)
        yield Mark(x, y, "orange", "cross", 5, title)
        return
    depth = strength(row.value.mean)
    ink = "paper" if depth > DARK else "ink"
    yield Area(box, "blue", depth)
    text = numbers.number(numbers.scale(setting.metric) * row.value.mean)
    if width_of(text, SMALL) <= right - left - 2:
        yield Words(x, y + 4, text, "middle", SMALL, color=ink)
    if row.shown and setting.metric.criterion and not is_first:
        yield Mark(left + 6, top + 6, ink, "diamond", 3, title)


def _ticks(
    columns: Sequence[float], left: float, width: float, gap: float, bottom: float, unit: str
) -> Iterator[Shape]:
    free = -math.inf
    for place, text in enumerate(["base", *(label(float(f"{value:.3g}")) for value in columns)]):
        x = left + width * (place + 0.5) + (gap if place else 0.0) - 1
        half = width_of(text, SMALL) / 2
        if x - half > free and x + half <= WIDTH + 1:
            yield Words(x, bottom + 14, text, "middle", SMALL, color="muted")
            free = x + half + 3
    yield Words((left + WIDTH) / 2, bottom + 32, unit, "middle", SMALL, color="muted")


def _description(family: Family, strategy: str) -> str:
    parts = []
    for setting in family.settings:
        rows = [row for row in thresholds(setting, strategy) if math.isfinite(row.value.mean)]
        if rows:
            best = max(rows, key=lambda row: setting.metric.sign * row.value.mean)
            value = numbers.estimate(best.value, setting.metric)
            parts.append(f"{family.axis} {setting.axes[family.axis]}: best at {label(best.threshold or 0.0)}, {value}")
    return f"{'; '.join(parts)}."
