"""Where the good points lie: the score against each searched option."""

from __future__ import annotations

import math
from collections.abc import Iterator

from clipbench.analysis.report_model import ContenderResult, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.drawing import SMALL, TITLE, Drawing, Figure, Shape, Words, shortened, width_of
from clipbench.reporting.figures.panel import Panel
from clipbench.reporting.figures.scale import Scale, scale
from clipbench.reporting.figures.search.dots import Scores, dots, is_confirmed, legend, scores
from clipbench.store.sweep_file import SearchedHyperparameter

WIDTH, HEIGHT = 330.0, 240.0
LEFT, RIGHT, TOP, FLOOR = 44.0, 318.0, 46.0, 196.0
MOST_NAME = 72.0  # of a choice at an axis


def figure(search: SearchResult, number: int) -> Figure | None:
    """A drawing for each option of each contender that was tried."""
    known = scores(search, number, FLOOR, TOP)
    pairs = [(row, param) for row in search.found if row.contender.tried for param in row.contender.hyperparameters]
    if not pairs:
        return None
    cells = tuple(_cell(row, param, known, search) for row, param in pairs)
    name = f"slices-{number + 1}" if number else "slices"
    by = f" ({known.measure.name})" if len(search.measures) > 1 else ""
    return Figure(name, f"Where do the good points lie?{by}", _caption(known, search), cells)


def _caption(known: Scores, search: SearchResult) -> str:
    cut = " Points that are much worse stand at the edge." if known.is_cut else ""
    confirmed = is_confirmed(search, known.number)
    fresh = " Green: the found point on fresh seeds, with its 95 % interval." if confirmed else ""
    return (
        f"Mean {known.measure.name} over the search seeds against the value of each searched option, over its whole "
        f"range. {legend(search)}{cut}{fresh}"
    )


def _cell(row: ContenderResult, param: SearchedHyperparameter, known: Scores, search: SearchResult) -> Drawing:
    places = {point.number: place(param, point.values.get(param.path)) for point in row.contender.points}
    x = axis(param, [value for value in places.values() if math.isfinite(value)], LEFT, RIGHT)
    label = search_sentences.names(search.swept)[param.path]
    ending = f": {shortened(label, WIDTH / 2, TITLE)}"
    panel = Panel(x, known.axis, known.unit, f"{shortened(label, 200)}{', log axis' if x.log else ''}")
    shapes: list[Shape] = [
        Words(
            0,
            14,
            f"{shortened(row.contender.label, WIDTH - width_of(ending, TITLE), TITLE)}{ending}",
            size=TITLE,
            bold=True,
        ),
        *panel.axes(),
        *_fresh(row, places, known, panel),
        *dots(row, {n: value for n, value in places.items() if math.isfinite(value)}, panel, known, search),
    ]
    title = f"{label} of {row.contender.label}"
    return Drawing(WIDTH, HEIGHT, tuple(shapes), title, _description(row, param, search))


def axis(param: SearchedHyperparameter, values: list[float], start: float, end: float) -> Scale:
    """The range that was searched with a little room, or a place for each choice."""
    if param.choices:
        room = min(MOST_NAME, abs(end - start) / len(param.choices) - 4)
        names = tuple(shortened(search_sentences.value(choice), room, SMALL) for choice in param.choices)
        return Scale(-0.5, len(names) - 0.5, start, end, names=names)
    ends = [value for value in (param.low, param.high) if math.isfinite(value)] or values
    return scale(ends, start, end, log=param.log, pad=0.04)


def place(param: SearchedHyperparameter, value: object) -> float:
    """Where a value stands on that axis; NaN for none."""
    if param.choices:
        return float(param.choices.index(value)) if value in param.choices else math.nan
    return float(value) if isinstance(value, float | int) else math.nan


def _fresh(row: ContenderResult, places: dict[int, float], known: Scores, panel: Panel) -> Iterator[Shape]:
    confirmed, factor = row.promises[known.number].confirmed, numbers.scale(known.measure)
    x = places.get(-1 if row.contender.winner is None else row.contender.winner, math.nan)
    if math.isfinite(x) and math.isfinite(confirmed.mean):
        yield from panel.upright(x, factor * confirmed.low, factor * confirmed.high, "green")
        title = f"{row.contender.label} on fresh seeds: {numbers.estimate(confirmed, known.measure)}"
        yield panel.mark(x, factor * confirmed.mean, "green", "square", title, 3.5)


def _description(row: ContenderResult, param: SearchedHyperparameter, search: SearchResult) -> str:
    winner = row.contender.winning
    found = f"found {search_sentences.value(winner.values.get(param.path))}" if winner else "nothing found"
    among = (
        ", ".join(map(search_sentences.value, param.choices))
        or f"{search_sentences.value(param.low)} to {search_sentences.value(param.high)}"
    )
    return f"{row.contender.tried} points among {among}; {found}."
