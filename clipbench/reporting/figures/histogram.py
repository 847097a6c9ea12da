"""The gradient norms of training without clipping, and the thresholds that rules compare them with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from clipbench.analysis import verdicts
from clipbench.analysis.curves import CurvesByArm, Histogram
from clipbench.analysis.plateau import thresholds
from clipbench.analysis.report_model import ArmResult, Setting
from clipbench.reporting import numbers
from clipbench.reporting.figures.chart_axes import Axes, Scale, scale, x_axis
from clipbench.reporting.figures.drawing import TEXT, Figure, Panel, left_margin, shortened

WIDTH, TOP, FLOOR, ROW = 360.0, 34.0, 174.0, 24.0
Rules = Mapping[str, Sequence[ArmResult]]


def figure(setting: Setting, curves: CurvesByArm, on_norm: Collection[str]) -> Figure | None:
    """The norms of the baseline, and below them a row of thresholds for each rule of `on_norm`.

    Those are the rules whose threshold is compared with the norm of the whole gradient. Other thresholds are on
    other scales.
    """
    baseline = next((row for row in setting.main if row.verdict == verdicts.BASELINE), None)
    histogram = curves[baseline.ids].norms if baseline and baseline.ids in curves else None
    if histogram is None or baseline is None:
        return None
    names = dict.fromkeys(row.strategy for row in setting.rows if row.strategy in on_norm)
    rules = {name: rows for name in names if (rows := thresholds(setting, name))}
    every = [row for rows in rules.values() for row in rows]
    x = scale(
        [*histogram.edges.tolist(), *(row.threshold or 0.0 for row in every)],
        max(44.0, left_margin([*rules, ""], WIDTH / 2, 12.0)),
        WIDTH - 10,
        log=True,
    )
    floor = FLOOR + ROW * len(rules)
    panel = Panel(WIDTH, floor + 44, f"Gradient norms of {baseline.arm}", _description(baseline, every, histogram))
    shares = (100 * histogram.counts / (histogram.sorted.size + histogram.zeros)).tolist()
    axes = Axes(panel, x, Scale(0, 1.08 * max(shares), FLOOR, TOP), "% of steps")
    for row in every:
        panel.line([(x(row.threshold or 0.0), TOP), (x(row.threshold or 0.0), floor)], "orange", 1, "3 3")
    edges = histogram.edges.tolist()
    for start, end, share in zip(edges, edges[1:], shares, strict=False):
        if share > 0:
            top = axes.y(share)
            panel.box(x(start), top, max(0.5, x(end) - x(start) - 0.7), FLOOR - top, "blue", 0.6)
    for number, (name, rows) in enumerate(rules.items()):
        _rule(panel, x, FLOOR + ROW * (number + 0.6), name, rows, setting, histogram)
    x_axis(panel, x, floor, "gradient norm before clipping, log axis")
    title = f"Where do thresholds lie among the norms of {baseline.arm}?"
    return Figure("histogram", title, _caption(baseline, rules, setting, histogram), (panel,), 1)


def _rule(
    panel: Panel, x: Scale, y: float, name: str, rows: Sequence[ArmResult], setting: Setting, histogram: Histogram
) -> None:
    panel.text(0, y + 4, shortened(name, x.start - 8), size=TEXT, color="ink")
    panel.line([(x.start, y), (x.end, y)], "grid", 1)
    for row in rows:
        look = ("diamond", 5.0) if row.shown and setting.metric.criterion else ("circle", 4.0)
        above = numbers.share(histogram.share_above(row.threshold or 0.0))
        title = f"{row.arm}: {above} of these steps have a larger norm"
        panel.mark(x(row.threshold or 0.0), y, "orange", look[0], title, look[1])


def _caption(baseline: ArmResult, rules: Rules, setting: Setting, histogram: Histogram) -> str:
    chosen = ", ◆ the one chosen on validation" if setting.metric.criterion else ""
    drawn = f" Dashed: the thresholds of rules on this norm{chosen}." if rules else ""
    zeros = f" {histogram.zeros} steps had a norm of 0 and are not drawn." if histogram.zeros else ""
    return (
        f"Norms of the whole gradient before clipping, over all steps and seeds of {baseline.arm}.{drawn} A "
        f"threshold to the right of the bars does nothing; one to the left of them acts on every step.{zeros}"
    )


def _description(baseline: ArmResult, rows: Sequence[ArmResult], histogram: Histogram) -> str:
    middle = numbers.number(float(histogram.sorted[histogram.sorted.size // 2]))
    above = "; ".join(f"{row.arm} {numbers.share(histogram.share_above(row.threshold or 0.0))}" for row in rows)
    return f"Median norm of {baseline.arm}: {middle}." + (
        f" Share of steps above each threshold: {above}." * bool(above)
    )
