"""The critical-difference diagram: average ranks, with bars over those that are not told apart."""

from __future__ import annotations

from collections.abc import Iterator

from clipbench.analysis.strategy_ranks import Ranks
from clipbench.reporting.figures.drawing import SMALL, Drawing, Figure, Line, Mark, Shape, Words, shortened, width_of
from clipbench.reporting.figures.scale import Scale

WIDTH, ROW, TOP, BAR = 420.0, 24.0, 26.0, 9.0


def figure(ranks: Ranks) -> Figure:
    """One line a strategy, at its average rank."""
    names, means = ranks.strategies, ranks.ranking.means
    left = min(170.0, max(width_of(name) for name in names) + 54)
    x = Scale(1, len(names), left, WIDTH - 14)
    groups = list(_groups(means, ranks.ranking.critical_difference))
    bottom = TOP + ROW * len(names)
    shapes: list[Shape] = list(_axis(x, bottom))
    for number, (name, mean) in enumerate(zip(names, means, strict=True)):
        height = TOP + ROW * (number + 0.5)
        shapes += _line(name, mean, x, height)
    for number, (first, last) in enumerate(groups):
        height = bottom + 42 + BAR * number
        shapes.append(Line(((x(means[first]) - 4, height), (x(means[last]) + 4, height)), "orange", 3))
    words = "; ".join(f"{name} {mean:.2f}" for name, mean in zip(names, means, strict=True))
    height = bottom + 50 + BAR * len(groups)
    drawing = Drawing(WIDTH, height, tuple(shapes), "Average ranks", f"Average ranks: {words}.")
    return Figure("ranks", "Which strategy ranks where?", f"{ranks.meaning} An orange bar spans those.", (drawing,), 1)


def _axis(x: Scale, bottom: float) -> Iterator[Shape]:
    for value, text in x.ticks:
        if value == int(value):
            yield Line(((x(value), TOP - 4), (x(value), bottom)), "grid", 1)
            yield Words(x(value), bottom + 16, text, "middle", SMALL, color="muted")
    yield Words((x.start + x.end) / 2, bottom + 32, "average rank", "middle", SMALL, color="muted")
    yield Words(x.start, 12, "◂ better", "start", SMALL, color="muted")


def _line(name: str, mean: float, x: Scale, height: float) -> Iterator[Shape]:
    yield Words(0, height + 4, shortened(name, x.start - 46))
    yield Words(x.start - 10, height + 4, f"{mean:.2f}", "end", SMALL, color="muted")
    yield Line(((x.start, height), (x(mean), height)), "gray", 1)
    yield Mark(x(mean), height, "blue", title=f"{name}: average rank {mean:.2f}", size=5)


def _groups(means: tuple[float, ...], difference: float) -> Iterator[tuple[int, int]]:
    """The longest runs whose ends are closer than the critical difference."""
    reached = -1
    for first, mean in enumerate(means):
        last = max((at for at, other in enumerate(means) if other - mean < difference), default=first)
        if last > first and last > reached:
            yield first, last
            reached = last
