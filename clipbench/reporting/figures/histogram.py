"""Where thresholds lie among the gradient norms that they are held against: those of training without clipping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from clipbench.analysis import verdicts
from clipbench.analysis.curves import CurvesByArm, Histogram
from clipbench.analysis.plateau import thresholds
from clipbench.analysis.report_model import ArmResult, Setting
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
from clipbench.reporting.figures.panel import Panel
from clipbench.reporting.figures.scale import Scale, scale

# Rules that hold their threshold against the norm of the whole gradient. Other thresholds are on other scales.
ON_THE_NORM = ("norm", "soft_norm", "normalize", "skip", "drop")
Rules = Mapping[str, Sequence[ArmResult]]
WIDTH, TOP, FLOOR, ROW = 400.0, 34.0, 174.0, 24.0


def figure(setting: Setting, courses: CurvesByArm) -> Figure | None:
    """The baseline's norms, and below them a line of thresholds for each rule on the norm."""
    baseline = next((row for row in setting.main if row.verdict == verdicts.BASELINE), None)
    histogram = courses[baseline.ids].norms if baseline and baseline.ids in courses else None
    if histogram is None or baseline is None:
        return None
    rules = {name: rows for name in ON_THE_NORM if (rows := thresholds(setting, name))}
    left = max(44.0, *(width_of(name) + 12 for name in rules), 0.0) if rules else 44.0
    every = [row.threshold or 0.0 for rows in rules.values() for row in rows]
    x = scale([*histogram.edges.tolist(), *every], left, WIDTH - 10, log=True)
    shares = (100 * histogram.counts / (histogram.sorted.size + histogram.zeros)).tolist()
    floor = FLOOR + ROW * len(rules)
    panel = Panel(x, Scale(0, 1.08 * max(shares), FLOOR, TOP), "% of steps")
    shapes: list[Shape] = [*panel.axes()]
    shapes += [Line(((x(value), TOP), (x(value), floor)), "orange", 1, "3 3") for value in every]
    shapes += _bars(histogram, shares, panel)
    for number, (name, rows) in enumerate(rules.items()):
        shapes += _line(setting, name, rows, histogram, x, FLOOR + ROW * (number + 0.6))
    shapes += _ticks(x, floor)
    description = _description(baseline, rules, histogram)
    drawing = Drawing(WIDTH, floor + 44, tuple(shapes), f"Gradient norms of {baseline.label}", description)
    title = f"Where do thresholds lie among the norms of {baseline.label}?"
    return Figure("histogram", title, _caption(baseline, rules, setting, histogram), (drawing,), 1)


def _caption(baseline: ArmResult, rules: Rules, setting: Setting, histogram: Histogram) -> str:
    chosen = ", ◆ the one chosen on validation" if setting.metric.criterion else ""
    drawn = f" Dashed: the thresholds of rules on this norm{chosen}." if rules else ""
    zeros = f" {histogram.zeros} steps had a norm of 0 and are not drawn." if histogram.zeros else ""
    return (
        f"Norms of the whole gradient before clipping, over all steps and seeds of {baseline.label}.{drawn} A "
        f"threshold right of the bars does nothing; one left of them acts on every step.{zeros}"
    )


def _bars(histogram: Histogram, shares: Sequence[float], panel: Panel) -> Iterator[Shape]:
    edges = histogram.edges.tolist()
    for start, end, share in zip(edges, edges[1:], shares, strict=False):
        if share > 0:
            left, right, top = panel.x(start), panel.x(end), panel.y(share)
            yield Area(rectangle(left, top, max(0.5, right - left - 0.7), FLOOR - top), "blue", 0.6)


def _line(
    setting: Setting, name: str, rows: Sequence[ArmResult], histogram: Histogram, x: Scale, height: float
) -> Iterator[Shape]:
    yield Words(0, height + 4, shortened(name, x.start - 8))
    yield Line(((x.start, height), (x.end, height)), "grid", 1)
    for row in rows:
        chosen = row.shown and setting.metric.criterion
        title = f"{row.label}: {numbers.share(histogram.share_above(row.threshold or 0.0))} of these steps lie above it"
        yield Mark(
            x(row.threshold or 0.0), height, "orange", "diamond" if chosen else "circle", 5 if chosen else 4, title
        )


def _ticks(x: Scale, floor: float) -> Iterator[Shape]:
    for value, text in x.ticks:
        yield Line(((x(value), floor), (x(value), floor + 4)), "muted", 1)
        yield Words(x(value), floor + 16, text, "middle", SMALL, color="muted")
    yield Words(
        (x.start + x.end) / 2, floor + 34, "gradient norm before clipping, log axis", "middle", SMALL, color="muted"
    )


def _description(baseline: ArmResult, rules: Rules, histogram: Histogram) -> str:
    middle = numbers.number(float(histogram.sorted[histogram.sorted.size // 2]))
    every = (row for rows in rules.values() for row in rows)
    above = "; ".join(f"{row.label} {numbers.share(histogram.share_above(row.threshold or 0.0))}" for row in every)
    lie = f" Share of steps above each threshold: {above}." if above else ""
    return f"Median norm of {baseline.label}: {middle}.{lie}"
