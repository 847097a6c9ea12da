"""The searched options: where their good values lie, how much each one mattered, and which values go together."""

from __future__ import annotations

import math

from clipbench.analysis.report_model import ContenderResult, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.chart_axes import Axes, Scale, scale, shown
from clipbench.reporting.figures.drawing import SMALL, TEXT, TITLE, Figure, Panel, left_margin, shortened, width_of
from clipbench.reporting.figures.search_points import HEIGHT, LEFT, RIGHT, WIDTH, Objective, draw_points, objective
from clipbench.store.sweep_file import SearchedContender, SearchedHyperparameter, SearchedPoint

MOST_NAME = 72.0  # width of a choice at an axis
ROW, NUMBER = 26.0, 48.0  # of the bars of the importance; room for its number
WIDE, MOST_NARROW = 400.0, 3  # width of a panel of parallel axes for more than so many options
FIRST, UPPER, LOWER = 36.0, 50.0, 204.0  # places of the parallel axes
BEST_SHARE = 0.1  # share of the points that is drawn as good
FEWEST = 3


def slices(search: SearchResult, number: int) -> Figure | None:
    """A panel for each option of each contender that was tried."""
    pairs = [(row, param) for row in search.found if row.contender.tried for param in row.contender.hyperparameters]
    if not pairs:
        return None
    known = objective(search, number)
    fresh = " Green: the best point on fresh seeds, with its 95 % interval."
    caption = (
        f"Mean {known.metric.name} over the search seeds against the value of each searched option, over its whole "
        f"range. {known.legend}"
    )
    panels = (_slice_panel(row, param, known) for row, param in pairs)
    return known.figure("slices", "Where do the good points lie?", caption, fresh, panels)


def axis(param: SearchedHyperparameter, values: list[float], start: float, end: float) -> Scale:
    """The range that was searched with a little room, or a place for each choice."""
    if param.choices:
        room = min(MOST_NAME, abs(end - start) / len(param.choices) - 4)
        names = (shortened(search_sentences.value(choice), room, SMALL) for choice in param.choices)
        return Scale(-0.5, len(param.choices) - 0.5, start, end, labels=tuple(enumerate(names)))
    ends = [value for value in (param.low, param.high) if math.isfinite(value)] or values
    return scale(ends, start, end, log=param.log, pad=0.04)


def place(param: SearchedHyperparameter, value: object) -> float:
    """Where a value lies on that axis; NaN where there is none."""
    if param.choices:
        return float(param.choices.index(value)) if value in param.choices else math.nan
    return float(value) if isinstance(value, float | int) else math.nan


def _slice_panel(row: ContenderResult, param: SearchedHyperparameter, known: Objective) -> Panel:
    label, contender = search_sentences.names(known.search.swept)[param.path], row.contender
    ending = f": {shortened(label, WIDTH / 2, TITLE)}"
    heading = f"{shortened(contender.label, WIDTH - width_of(ending, TITLE), TITLE)}{ending}"
    panel = Panel(WIDTH, HEIGHT, f"{label} of {contender.label}", _slice_description(contender, param), heading)
    places = {point.number: place(param, point.values.get(param.path)) for point in contender.points}
    x = axis(param, [value for value in places.values() if math.isfinite(value)], LEFT, RIGHT)
    axes = Axes(panel, x, known.axis, known.label, f"{shortened(label, 200)}{', log axis' if x.log else ''}")
    confirmed = row.confirmations[known.number].confirmed
    found = places.get(-1 if contender.winner is None else contender.winner, math.nan)
    if math.isfinite(found) and math.isfinite(confirmed.mean):
        low, mean, high = shown(confirmed, known.metric)
        axes.interval(found, low, high, "green")
        title = f"{contender.label} on fresh seeds: {numbers.estimate(confirmed, known.metric)}"
        axes.mark(found, mean, "green", "square", title, 3.5)
    draw_points(axes, contender, places, known)
    return panel


def _slice_description(contender: SearchedContender, param: SearchedHyperparameter) -> str:
    winner, value = contender.winning, search_sentences.value
    found = f"found {value(winner.values.get(param.path))}" if winner else "nothing found"
    among = ", ".join(map(value, param.choices)) or f"{value(param.low)} to {value(param.high)}"
    return f"{contender.tried} points among {among}; {found}."


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
        panel = Panel(WIDTH, height, f"What mattered for {contender.label}", f"{said}.", contender.label)
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
    every = [row.contender for row in search.found if len(row.contender.hyperparameters) > 1]
    contenders = [contender for contender in every if len(_steady(contender)) >= FEWEST]
    if not contenders:
        return None
    known = objective(search, 0, LOWER, UPPER)
    better = "higher" if known.metric.higher_is_better else "lower"
    caption = (
        f"Each line is a point that was trained to its end, from its values to its {known.metric.name} at the right "
        f"({better} is better).{known.cut} Thick orange: the best point. Blue: the best tenth. Gray: the others. "
        "Where blue lines run together, the value matters; where they spread, it does not."
    )
    is_narrow = max(len(contender.hyperparameters) for contender in contenders) <= MOST_NARROW
    panels = tuple(_parallel_panel(contender, known, WIDTH if is_narrow else WIDE) for contender in contenders)
    return Figure("parallel", "Which values go together?", caption, panels, 3 if is_narrow else 1)


def _steady(contender: SearchedContender) -> list[SearchedPoint]:
    return [point for point in contender.points if point.is_steady]


def _parallel_panel(contender: SearchedContender, known: Objective, width: float) -> Panel:
    names = search_sentences.names(known.search.swept)
    params, points = contender.hyperparameters, sorted(_steady(contender), key=lambda p: known.metric.sign * p.score(0))
    best = points[len(points) - max(FEWEST, math.ceil(BEST_SHARE * len(points))) :]
    places = "; ".join(search_sentences.place(point, names) for point in reversed(best))
    description = f"The best {len(best)} of {len(points)} points, from the best on: {places}."
    panel = Panel(width, LOWER + 12, f"Values of {contender.label} that go together", description, contender.label)
    axes = [axis(k, [place(k, p.values.get(k.path)) for p in points], LOWER, UPPER) for k in params] + [known.axis]
    room = (width - FIRST - 12) / len(params)
    xs = [FIRST + room * number for number in range(len(axes))]
    others = [point for point in points if point.number != contender.winner]
    for point in [*others, contender.winning] if contender.winning else others:
        values = [place(param, point.values.get(param.path)) for param in params] + [known.height(point)]
        is_winner = point.number == contender.winner
        look = ("orange", 2.6) if is_winner else ("blue", 1.6) if point in best else ("gray", 0.8)
        if all(map(math.isfinite, values)):
            panel.line([(x, upright(value)) for x, upright, value in zip(xs, axes, values, strict=True)], *look)
    labels = [*(names[param.path] for param in params), numbers.unit(known.metric)]
    for upright, x, label in zip(axes, xs, labels, strict=True):
        _axis(panel, upright, x, shortened(label, room - 6, SMALL))
    return panel


def _axis(panel: Panel, upright: Scale, x: float, label: str) -> None:
    """An upright axis whose ticks have white ground, so that lines do not cross them."""
    panel.line([(x, UPPER), (x, LOWER)], "muted", 1.2)
    half, width = width_of(label, SMALL) / 2, panel.width
    where = (0.0, "start") if x < half else (width, "end") if x + half > width else (x, "middle")
    panel.text(where[0], UPPER - 14, label, where[1])
    for value, text in upright.ticks:
        height, wide = upright(value), width_of(text, SMALL)
        panel.box(x - 7 - wide, height - 6, wide + 3, 12, "paper", 0.8)
        panel.line([(x - 3, height), (x, height)], "muted", 1)
        panel.text(x - 5, height + 4, text, "end")
