"""Where the good points lie: the score against each searched option."""

from __future__ import annotations

import math

from clipbench.analysis.report_model import ContenderResult, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.axes import Axes, Scale, scale, shown
from clipbench.reporting.figures.drawing import SMALL, TITLE, Figure, Panel, shortened, width_of
from clipbench.reporting.figures.search_points import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Scores,
    draw_points,
    is_confirmed,
    legend,
    scores,
)
from clipbench.store.sweep_file import SearchedHyperparameter

MOST_NAME = 72.0  # width of a choice at an axis


def figure(search: SearchResult, number: int) -> Figure | None:
    """A panel for each option of each contender that was tried."""
    known = scores(search, number)
    pairs = [(row, param) for row in search.found if row.contender.tried for param in row.contender.hyperparameters]
    if not pairs:
        return None
    fresh = " Green: the best point on fresh seeds, with its 95 % interval."
    caption = (
        f"Mean {known.metric.name} over the search seeds against the value of each searched option, over its whole "
        f"range. {legend(search)}{known.cut}{fresh if is_confirmed(search, number) else ''}"
    )
    name = f"slices-{number + 1}" if number else "slices"
    by = f" ({known.metric.name})" if len(search.measures) > 1 else ""
    panels = tuple(_panel(row, param, known, search) for row, param in pairs)
    return Figure(name, f"Where do the good points lie?{by}", caption, panels)


def axis(param: SearchedHyperparameter, values: list[float], start: float, end: float) -> Scale:
    """The range that was searched with a little room, or a place for each choice."""
    if param.choices:
        room = min(MOST_NAME, abs(end - start) / len(param.choices) - 4)
        names = tuple(shortened(search_sentences.value(choice), room, SMALL) for choice in param.choices)
        return Scale(-0.5, len(names) - 0.5, start, end, names=names)
    ends = [value for value in (param.low, param.high) if math.isfinite(value)] or values
    return scale(ends, start, end, log=param.log, pad=0.04)


def place(param: SearchedHyperparameter, value: object) -> float:
    """Where a value lies on that axis; NaN where there is none."""
    if param.choices:
        return float(param.choices.index(value)) if value in param.choices else math.nan
    return float(value) if isinstance(value, float | int) else math.nan


def _panel(row: ContenderResult, param: SearchedHyperparameter, known: Scores, search: SearchResult) -> Panel:
    label, contender = search_sentences.names(search.swept)[param.path], row.contender
    panel = Panel(WIDTH, HEIGHT, f"{label} of {contender.label}", _description(row, param))
    ending = f": {shortened(label, WIDTH / 2, TITLE)}"
    panel.heading(f"{shortened(contender.label, WIDTH - width_of(ending, TITLE), TITLE)}{ending}")
    places = {point.number: place(param, point.values.get(param.path)) for point in contender.points}
    x = axis(param, [value for value in places.values() if math.isfinite(value)], LEFT, RIGHT)
    axes = Axes(panel, x, known.axis, known.label, f"{shortened(label, 200)}{', log axis' if x.log else ''}")
    confirmed = row.promises[known.number].confirmed
    found = places.get(-1 if contender.winner is None else contender.winner, math.nan)
    if math.isfinite(found) and math.isfinite(confirmed.mean):
        low, mean, high = shown(confirmed, known.metric)
        axes.interval(found, low, high, "green")
        title = f"{contender.label} on fresh seeds: {numbers.estimate(confirmed, known.metric)}"
        axes.mark(found, mean, "green", "square", title, 3.5)
    draw_points(axes, row, places, known, search)
    return panel


def _description(row: ContenderResult, param: SearchedHyperparameter) -> str:
    winner, value = row.contender.winning, search_sentences.value
    found = f"found {value(winner.values.get(param.path))}" if winner else "nothing found"
    among = ", ".join(map(value, param.choices)) or f"{value(param.low)} to {value(param.high)}"
    return f"{row.contender.tried} points among {among}; {found}."
