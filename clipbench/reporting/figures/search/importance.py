"""What mattered: the share of the differences between points that each searched option explains."""

from __future__ import annotations

import math

from clipbench.analysis.report_model import ContenderResult, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.drawing import (
    SMALL,
    TITLE,
    Area,
    Drawing,
    Figure,
    Shape,
    Words,
    rectangle,
    shortened,
    width_of,
)

WIDTH, ROW, TOP, NUMBER = 330.0, 26.0, 26.0, 48.0


def figure(search: SearchResult) -> Figure | None:
    """A drawing for each contender of which several options were searched."""
    rows = [row for row in search.found if len(row.contender.importances) > 1]
    if not rows:
        return None
    most = max(len(row.contender.importances) for row in rows)
    cells = tuple(_cell(row, search, TOP + ROW * most) for row in rows)
    caption = (
        "Share of the differences between a contender's points that each option explains, as Optuna estimates it; of a "
        "few points it is a rough guess."
    )
    return Figure("importance", "Which option mattered?", caption, cells)


def _cell(row: ContenderResult, search: SearchResult, height: float) -> Drawing:
    names = search_sentences.names(search.swept)
    shares = sorted(row.contender.importances.items(), key=lambda pair: -pair[1])
    left = min(150.0, max(width_of(names.get(path, path)) for path, _ in shares) + 10)
    shapes: list[Shape] = [Words(0, 14, shortened(row.contender.label, WIDTH, TITLE), size=TITLE, bold=True)]
    for number, (path, share) in enumerate(shares):
        top = TOP + ROW * number
        length = (WIDTH - left - NUMBER) * (share if math.isfinite(share) else 0.0)
        shapes += [
            Words(0, top + ROW / 2 + 4, shortened(names.get(path, path), left - 8)),
            Area(rectangle(left, top + 4, WIDTH - left - NUMBER, ROW - 8), "gray", 0.15),
            Area(rectangle(left, top + 4, max(1.0, length), ROW - 8), "blue", 0.8),
            Words(WIDTH, top + ROW / 2 + 4, numbers.share(share), "end", SMALL, color="muted"),
        ]
    said = "; ".join(f"{names.get(path, path)} {numbers.share(share)}" for path, share in shares)
    return Drawing(WIDTH, height, tuple(shapes), f"What mattered for {row.contender.label}", f"{said}.")
