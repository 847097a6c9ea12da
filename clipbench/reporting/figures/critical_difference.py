"""The critical-difference diagram: average ranks, with bars over those that do not differ significantly."""

from __future__ import annotations

from collections.abc import Iterator

from clipbench.analysis.strategy_ranks import Ranks
from clipbench.reporting.combined import ranks_meaning
from clipbench.reporting.figures.chart_axes import Scale, x_axis
from clipbench.reporting.figures.drawing import TEXT, Figure, Panel, left_margin, shortened

WIDTH, ROW, TOP, BAR = 360.0, 24.0, 26.0, 9.0


def figure(ranks: Ranks) -> Figure:
    """One row for each strategy, at its average rank."""
    names, means = ranks.strategies, ranks.ranking.means
    groups = list(_groups(means, ranks.ranking.critical_difference))
    whole = tuple(float(rank) for rank in range(1, len(names) + 1, max(1, len(names) // 8)))
    x = Scale(1, len(names), left_margin(names, 170.0, 54.0), WIDTH - 14).at(whole)
    bottom = TOP + ROW * len(names)
    words = "; ".join(f"{name} {mean:.2f}" for name, mean in zip(names, means, strict=True))
    panel = Panel(WIDTH, bottom + 50 + BAR * len(groups), "Average ranks", f"Average ranks: {words}.")
    x_axis(panel, x, bottom, "average rank", top=TOP - 4)
    panel.text(x.start, 12, "◂ better")
    for number, (name, mean) in enumerate(zip(names, means, strict=True)):
        y = TOP + ROW * (number + 0.5)
        panel.text(0, y + 4, shortened(name, x.start - 46), size=TEXT, color="ink")
        panel.text(x.start - 10, y + 4, f"{mean:.2f}", "end")
        panel.line([(x.start, y), (x(mean), y)], "gray", 1)
        panel.mark(x(mean), y, "blue", "circle", f"{name}: average rank {mean:.2f}", 5)
    for number, (first, last) in enumerate(groups):
        y = bottom + 42 + BAR * number
        panel.line([(x(means[first]) - 4, y), (x(means[last]) + 4, y)], "orange", 3)
    caption = f"{ranks_meaning(ranks)} An orange bar spans those."
    return Figure("ranks", "Which strategy ranks where?", caption, (panel,), 1)


def _groups(means: tuple[float, ...], difference: float) -> Iterator[tuple[int, int]]:
    """The longest runs whose ends are closer than the critical difference."""
    reached = -1
    for first, mean in enumerate(means):
        last = max((at for at, other in enumerate(means) if other - mean < difference), default=first)
        if last > first and last > reached:
            yield first, last
            reached = last
