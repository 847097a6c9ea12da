"""Which option mattered: the share of the differences between points that each searched option explains."""

from __future__ import annotations

import math

from clipbench.analysis.report_model import SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.drawing import TEXT, Figure, Panel, left_margin, shortened

WIDTH, ROW, TOP, NUMBER = 330.0, 26.0, 26.0, 48.0


def figure(search: SearchResult) -> Figure | None:
    """A panel for each contender of which several options were searched."""
    contenders = [row.contender for row in search.found if len(row.contender.importances) > 1]
    if not contenders:
        return None
    names, panels = search_sentences.names(search.swept), []
    height = TOP + ROW * max(len(contender.importances) for contender in contenders)
    for contender in contenders:
        shares = sorted(contender.importances.items(), key=lambda pair: -pair[1])
        bars = [(names.get(path, path), share) for path, share in shares]
        said = "; ".join(f"{name} {numbers.share(share)}" for name, share in bars)
        panel = Panel(WIDTH, height, f"What mattered for {contender.label}", f"{said}.")
        panel.heading(contender.label)
        left = left_margin([name for name, _ in bars], 150.0)
        for number, (name, share) in enumerate(bars):
            top, room = TOP + ROW * number, WIDTH - left - NUMBER
            panel.text(0, top + ROW / 2 + 4, shortened(name, left - 8), size=TEXT, color="ink")
            panel.box(left, top + 4, room, ROW - 8, "gray", 0.15)
            panel.box(left, top + 4, max(1.0, room * (share if math.isfinite(share) else 0.0)), ROW - 8, "blue", 0.8)
            panel.text(WIDTH, top + ROW / 2 + 4, numbers.share(share), "end")
        panels.append(panel)
    caption = (
        "Share of the differences between a contender's points that each option explains, as Optuna estimates it; "
        "with few points it is a rough guess."
    )
    return Figure("importance", "Which option mattered?", caption, tuple(panels))
