"""The searched options: how much each one mattered, and which values go together."""

from __future__ import annotations

import math

from clipbench.analysis.report_model import ContenderResult, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.chart_axes import Scale
from clipbench.reporting.figures.drawing import SMALL, TEXT, Figure, Panel, left_margin, shortened, width_of
from clipbench.reporting.figures.search_points import Scores, axis, place, scores
from clipbench.store.sweep_file import SearchedPoint

WIDTH, ROW, NUMBER = 330.0, 26.0, 48.0  # of the bars of the importance; room for its number
WIDE, MOST_NARROW = 400.0, 3  # width of a panel of parallel axes for more than so many options
LEFT, TOP, FLOOR, HEIGHT = 36.0, 50.0, 204.0, 216.0
BEST = 0.1  # share of the points that is drawn as good
FEWEST = 3


def importance(search: SearchResult) -> Figure | None:
    """A panel for each contender of which several options were searched."""
    contenders = [row.contender for row in search.found if len(row.contender.importances) > 1]
    if not contenders:
        return None
    names, panels = search_sentences.names(search.swept), []
    height = ROW * (1 + max(len(contender.importances) for contender in contenders))
    for contender in contenders:
        shares = sorted(contender.importances.items(), key=lambda pair: -pair[1])
        bars = [(names.get(path, path), share) for path, share in shares]
        said = "; ".join(f"{name} {numbers.share(share)}" for name, share in bars)
        panel = Panel(WIDTH, height, f"What mattered for {contender.label}", f"{said}.")
        panel.heading(contender.label)
        left = left_margin([name for name, _ in bars], 150.0)
        for number, (name, share) in enumerate(bars):
            top, room = ROW * (1 + number), WIDTH - left - NUMBER
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


def parallel(search: SearchResult) -> Figure | None:
    """A panel for each contender of which several options were searched."""
    known = scores(search, 0, FLOOR, TOP)
    rows = [row for row in search.found if len(row.contender.hyperparameters) > 1 and len(_steady(row)) >= FEWEST]
    if not rows:
        return None
    better = "higher" if known.metric.higher_is_better else "lower"
    caption = (
        f"Each line is a point that was trained to its end, from its values to its {known.metric.name} at the right "
        f"({better} is better).{known.cut} Thick orange: the best point. Blue: the best tenth. Gray: the others. "
        "Where blue lines run together, the value matters; where they spread, it does not."
    )
    is_narrow = max(len(row.contender.hyperparameters) for row in rows) <= MOST_NARROW
    panels = tuple(_panel(row, known, search, WIDTH if is_narrow else WIDE) for row in rows)
    return Figure("parallel", "Which values go together?", caption, panels, 3 if is_narrow else 1)


def _steady(row: ContenderResult) -> list[SearchedPoint]:
    return [point for point in row.contender.points if point.is_steady]


def _panel(row: ContenderResult, known: Scores, search: SearchResult, width: float) -> Panel:
    contender, names = row.contender, search_sentences.names(search.swept)
    params, points = contender.hyperparameters, sorted(_steady(row), key=lambda p: known.metric.sign * p.score(0))
    best = points[len(points) - max(FEWEST, math.ceil(BEST * len(points))) :]
    places = "; ".join(search_sentences.place(point, names) for point in reversed(best))
    description = f"The best {len(best)} of {len(points)} points, from the best on: {places}."
    panel = Panel(width, HEIGHT, f"Values of {contender.label} that go together", description)
    panel.heading(contender.label)
    axes = [axis(k, [place(k, p.values.get(k.path)) for p in points], FLOOR, TOP) for k in params] + [known.axis]
    room = (width - LEFT - 12) / len(params)
    xs = [LEFT + room * number for number in range(len(axes))]
    others = [point for point in points if point.number != contender.winner]
    for point in [*others, contender.winning] if contender.winning else others:
        values = [place(param, point.values.get(param.path)) for param in params] + [known.height(point)]
        is_winner = point.number == contender.winner
        look = ("orange", 2.6) if is_winner else ("blue", 1.6) if point in best else ("gray", 0.8)
        if all(map(math.isfinite, values)):
            panel.line([(x, scale(value)) for x, scale, value in zip(xs, axes, values, strict=True)], *look)
    labels = [*(names[param.path] for param in params), numbers.unit(known.metric)]
    for scale, x, label in zip(axes, xs, labels, strict=True):
        _axis(panel, scale, x, shortened(label, room - 6, SMALL))
    return panel


def _axis(panel: Panel, scale: Scale, x: float, label: str) -> None:
    """An upright axis whose ticks have white ground, so that lines do not cross them."""
    panel.line([(x, TOP), (x, FLOOR)], "muted", 1.2)
    half, width = width_of(label, SMALL) / 2, panel.width
    where = (0.0, "start") if x < half else (width, "end") if x + half > width else (x, "middle")
    panel.text(where[0], TOP - 14, label, where[1])
    for value, text in scale.ticks:
        height, wide = scale(value), width_of(text, SMALL)
        panel.box(x - 7 - wide, height - 6, wide + 3, 12, "paper", 0.8)
        panel.line([(x - 3, height), (x, height)], "muted", 1)
        panel.text(x - 5, height + 4, text, "end")
