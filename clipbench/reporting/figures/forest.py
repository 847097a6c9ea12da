"""Every strategy compared with the baseline: differences paired by seed, with their intervals."""

from __future__ import annotations

import math

from clipbench.analysis import verdicts
from clipbench.analysis.report_model import ArmResult, Contrast, Setting
from clipbench.reporting import numbers, tones
from clipbench.reporting.figures.chart_axes import Scale, scale, shown, x_axis
from clipbench.reporting.figures.drawing import TEXT, Figure, Panel, left_margin, shortened

WIDTH, ROW, TOP = 360.0, 38.0, 26.0
LOOKS = {tones.GOOD: ("green", "circle"), tones.BAD: ("orange", "diamond")}
OTHERS = ("gray", "ring")


def figure(setting: Setting) -> Figure | None:
    """One panel with a row for each arm, in the order of the comparison."""
    rows = [(row, row.contrast) for row in setting.main if row.contrast]
    if not rows:
        return None
    margin = (
        " The gray band is the margin within which a difference does not matter; for `no effect` the 90 % interval "
        "must lie in it."
    )
    caption = (
        f"Difference in {setting.metric.name} paired by seed, with its 95 % t interval; to the right is better."
        f"{margin if setting.margin else ''} ● better than the baseline, ◆ worse, ○ neither shown."
    )
    words = [(row.arm, _difference(row, contrast, setting)) for row, contrast in rows]
    left = left_margin([text for pair in words for text in pair], 180.0, 14.0)
    ends = [end for _, contrast in rows for end in shown(contrast.difference, setting.metric)]
    margin_end = numbers.scale(setting.metric) * (setting.margin or 0.0)
    x, bottom = scale([0.0, *ends, -margin_end, margin_end], left, WIDTH - 8), TOP + ROW * len(rows)
    described = "; ".join(f"{row.arm} {text}, {row.verdict}" for (row, _), (_, text) in zip(rows, words, strict=True))
    panel = Panel(WIDTH, bottom + 44, f"Differences to {setting.baseline}", f"{described}.")
    if setting.margin:
        panel.box(x(-margin_end), TOP - 4, max(1.0, x(margin_end) - x(-margin_end)), bottom - TOP + 4, "gray", 0.22)
    unit = f"{setting.metric.name} compared with {setting.versus}{numbers.difference_unit(setting.metric)}"
    x_axis(panel, x, bottom, unit, top=TOP - 4)
    panel.line([(x(0), TOP - 4), (x(0), bottom)], "ink", 1.2)
    panel.text(x(0) - 7, 12, "◂ worse", "end")
    panel.text(x(0) + 7, 12, "better ▸")
    for number, (row, contrast) in enumerate(rows):
        _row(panel, x, TOP + ROW * (number + 0.5), setting, row, contrast)
    return Figure("differences", f"How far is each strategy from {setting.baseline}?", caption, (panel,), 1)


def _row(panel: Panel, x: Scale, y: float, setting: Setting, row: ArmResult, contrast: Contrast) -> None:
    words, (low, mean, high) = _difference(row, contrast, setting), shown(contrast.difference, setting.metric)
    color, shape = LOOKS.get(tones.TONES.get(row.verdict, ""), OTHERS)
    panel.text(
        0,
        y - 2,
        shortened(row.arm, x.start - 8),
        size=TEXT,
        color="ink",
        bold=row.verdict in (verdicts.BEST, verdicts.FIRST),
    )
    panel.text(0, y + 12, words)
    if math.isfinite(low):
        panel.line([(x(low), y), (x(high), y)], color, 2)
    if math.isfinite(mean):
        title = f"{row.arm}: {words}, {numbers.p_clause(contrast.p_holm)}, {row.verdict}"
        panel.mark(x(mean), y, color, shape, title, 5)


def _difference(row: ArmResult, contrast: Contrast, setting: Setting) -> str:
    if not contrast.difference.n:
        return f"diverged {numbers.diverged(row)}" if row.diverged else "no pair finished"
    return numbers.interval(contrast.difference, setting.metric)
