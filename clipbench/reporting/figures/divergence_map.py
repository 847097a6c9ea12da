"""Where training diverges: strategy by threshold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from clipbench.analysis.report_model import ArmResult, Setting
from clipbench.reporting import numbers
from clipbench.reporting.figures.chart_axes import Scale, scale, x_axis
from clipbench.reporting.figures.drawing import SMALL, TEXT, Figure, Panel, left_margin, shortened

WIDTH, ROW, TOP, SIDE = 360.0, 30.0, 8.0, 11.0
ALONE = 36.0  # width of the column of strategies without a threshold


def figure(setting: Setting) -> Figure | None:
    """One panel with a row for each strategy; None where nothing diverged."""
    rows = [row for row in setting.rows if row.trials]
    if not any(row.diverged for row in rows):
        return None
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    left, bottom = left_margin(strategies, 130.0), TOP + ROW * len(strategies)
    counts = "; ".join(f"{row.arm} {numbers.diverged(row)}" for row in rows if row.diverged)
    panel = Panel(WIDTH, bottom + 44, "Divergence map", f"Diverged: {counts}.")
    values = [row.threshold for row in rows if row.threshold]
    x = scale(values, left + ALONE + SIDE, WIDTH - SIDE, log=True) if values else None
    if x:
        x_axis(panel, x, bottom, "threshold, log axis", top=TOP)
        panel.text(left + ALONE / 2, bottom + 16, "none", "middle")
    for number, strategy in enumerate(strategies):
        y = TOP + ROW * (number + 0.5)
        panel.text(0, y + 4, shortened(strategy, left - 8), size=TEXT, color="ink")
        _tiles(panel, [row for row in rows if row.strategy == strategy], x, left + ALONE / 2, y)
    caption = (
        "The number of seeds on which each arm diverged; the darker, the more. "
        "Strategies without a threshold are in the first column."
    )
    return Figure("divergence", "Where did training diverge?", caption, (panel,), 1)


def _tiles(panel: Panel, rows: Sequence[ArmResult], x: Scale | None, alone: float, y: float) -> None:
    """A tile for each threshold; narrower ones where thresholds are close to one another."""
    places = [x(row.threshold) if x and row.threshold else alone for row in rows]
    half = max(2.0, min([SIDE, *((after - before) / 2 - 1 for before, after in pairwise(sorted(places)))]))
    for row, place in zip(rows, places, strict=True):
        panel.box(place - half, y - SIDE, 2 * half, 2 * SIDE, "paper")
        opacity = 0.2 + 0.7 * row.diverged / row.trials
        color, title = "orange" if row.diverged else "gray", f"{row.arm}: {numbers.diverged(row)} diverged"
        panel.box(place - half, y - SIDE, 2 * half, 2 * SIDE, color, opacity, title)
        if half > 7:
            panel.text(place, y + 4, str(row.diverged), "middle", SMALL, "ink", bold=bool(row.diverged))
