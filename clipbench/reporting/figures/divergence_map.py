"""Where training diverges: strategy by threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clipbench.analysis.report_model import ArmResult, Setting
from clipbench.reporting import numbers
from clipbench.reporting.figures.drawing import (
    SMALL,
    Area,
    Drawing,
    Figure,
    Line,
    Shape,
    Words,
    rectangle,
    shortened,
    width_of,
)
from clipbench.reporting.figures.scale import Scale, scale

WIDTH, ROW, TOP, SIDE = 400.0, 30.0, 8.0, 11.0
ALONE = 36.0  # the place of strategies without a threshold


def figure(setting: Setting) -> Figure | None:
    """One drawing with a line a strategy; None where nothing diverged."""
    rows = [row for row in setting.rows if row.trials]
    if not any(row.diverged for row in rows):
        return None
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    left = min(130.0, max(width_of(strategy) for strategy in strategies) + 10)
    values = [row.threshold for row in rows if row.threshold]
    bottom = TOP + ROW * len(strategies)
    x = scale(values, left + ALONE + SIDE, WIDTH - SIDE, log=True) if values else None
    shapes: list[Shape] = list(_axes(x, left, bottom))
    for number, strategy in enumerate(strategies):
        height = TOP + ROW * (number + 0.5)
        shapes.append(Words(0, height + 4, shortened(strategy, left - 8)))
        shapes += _tiles([row for row in rows if row.strategy == strategy], x, left, height)
    counts = "; ".join(f"{row.label} {numbers.diverged(row)}" for row in rows if row.diverged)
    drawing = Drawing(WIDTH, bottom + 44, tuple(shapes), "Divergence map", f"Diverged: {counts}.")
    caption = (
        "The number of seeds on which each arm diverged; the darker, the more. "
        "Strategies without a threshold stand in the first column."
    )
    return Figure("divergence", "Where did training diverge?", caption, (drawing,), 1)


def _axes(x: Scale | None, left: float, bottom: float) -> Iterator[Shape]:
    if x is None:
        return
    for value, text in x.ticks:
        yield Line(((x(value), TOP), (x(value), bottom)), "grid", 1)
        yield Words(x(value), bottom + 16, text, "middle", SMALL, color="muted")
    yield Words(left + ALONE / 2, bottom + 16, "no", "middle", SMALL, color="muted")
    yield Words((x.start + x.end) / 2, bottom + 34, "threshold, log axis", "middle", SMALL, color="muted")


def _tiles(rows: Sequence[ArmResult], x: Scale | None, left: float, height: float) -> Iterator[Shape]:
    """Side by side where there is room; thresholds that are too close for that become narrower."""
    places = [x(row.threshold) if x and row.threshold else left + ALONE / 2 for row in rows]
    gaps = [after - before for before, after in zip(sorted(places), sorted(places)[1:], strict=False)]
    half = max(2.0, min([SIDE, *(gap / 2 - 1 for gap in gaps)]))
    for row, place in zip(rows, places, strict=True):
        share = row.diverged / row.trials
        box = rectangle(place - half, height - SIDE, 2 * half, 2 * SIDE)
        yield Area(box, "paper", 1.0)
        yield Area(box, "orange" if row.diverged else "gray", 0.2 + 0.7 * share)
        if half > 7:
            yield Words(place, height + 4, str(row.diverged), "middle", SMALL, bold=bool(row.diverged))
