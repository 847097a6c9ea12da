"""The points of a search: their scores in the order in which they were tried, and against each searched option."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from clipbench.analysis.report_model import ContenderResult, Metric, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.chart_axes import Axes, Scale, metric_label, scale, shown, spans_decades
from clipbench.reporting.figures.drawing import SMALL, TITLE, Figure, Panel, Point, shortened, staircase, width_of
from clipbench.store.sweep_file import SearchedContender, SearchedHyperparameter, SearchedPoint

WIDTH, HEIGHT = 330.0, 240.0
LEFT, RIGHT, TOP, FLOOR = 44.0, 318.0, 46.0, 196.0
MOST_NAME = 72.0  # width of a choice at an axis
LEGEND = {
    "circle": "● a point",
    "square": "■ one that the YAML or the pilot gave",
    "ring": "○ pruned",
    "cross": "× diverged or failed",
    "diamond": "◆ the best point",
}
FARTHEST = 3.0  # scores farther from the best than this many times the median's distance are drawn at the edge


@dataclass(frozen=True)
class Scores:
    """The axis of an objective, shared by all contenders so that they can be compared."""

    number: int
    metric: Metric
    axis: Scale
    is_cut: bool  # points that are much worse than most are drawn at its edge

    @property
    def label(self) -> str:
        return metric_label(self.metric, self.axis)

    def height(self, point: SearchedPoint) -> float:
        """The score; the worse end for a point that diverged or failed, whose score has a penalty."""
        score = numbers.scale(self.metric) * point.score(self.number)
        if math.isfinite(score) and not point.diverged and point.state != "failed":
            return score
        return self.axis.low if self.metric.higher_is_better else self.axis.high

    @property
    def cut(self) -> str:
        return " Points that are much worse are drawn at the edge." if self.is_cut else ""


def scores(search: SearchResult, number: int, start: float = FLOOR, end: float = TOP) -> Scores:
    metric = search.measures[number]
    factor = numbers.scale(metric)
    steady = [factor * p.score(number) for row in search.found for p in row.contender.points if p.is_steady]
    near = _near(steady, metric.sign, log=not metric.is_share and spans_decades(steady))
    fresh = [end for row in search.found for end in shown(row.promises[number].confirmed, metric) if math.isfinite(end)]
    log = not metric.is_share and spans_decades([*near, *fresh])
    return Scores(number, metric, scale([*near, *fresh], start, end, log=log), len(near) < len(steady))


def _near(values: list[float], sign: int, *, log: bool) -> list[float]:
    """Without those that are so much worse than most that the others could not be told apart."""
    if not values:
        return []
    places = [math.log(value) if log else value for value in values]
    best = max(sign * place for place in places) * sign
    farthest = FARTHEST * abs(best - statistics.median(places))
    return [value for value, place in zip(values, places, strict=True) if abs(best - place) <= farthest]


def legend(search: SearchResult) -> str:
    """What the marks that occur mean."""
    used = {_look(p, row.contender)[1] for row in search.found for p in row.contender.points if p.state != "running"}
    return f"{', '.join(words for shape, words in LEGEND.items() if shape in used)}."


def is_confirmed(search: SearchResult, number: int) -> bool:
    return any(row.promises[number].confirmed.n for row in search.found if row.contender.winning)


def draw_points(axes: Axes, row: ContenderResult, x: Mapping[int, float], known: Scores, search: SearchResult) -> None:
    """A mark for each finished point that has a finite place in `x`; the best one last, so that nothing covers it."""
    points = [p for p in row.contender.points if math.isfinite(x[p.number]) and p.state != "running"]
    for point in sorted(points, key=lambda point: point.number == row.contender.winner):
        color, shape, size = _look(point, row.contender)
        axes.mark(x[point.number], known.height(point), color, shape, describe(row.contender, point, search), size)


def _look(point: SearchedPoint, contender: SearchedContender) -> tuple[str, str, float]:
    if point.number == contender.winner:
        return "orange", "diamond", 5
    if point.diverged or point.state == "failed":
        return "orange", "cross", 4
    if point.state == "pruned":
        return "gray", "ring", 3.5
    return ("blue", "circle", 3.5) if point.origin == "search" else ("blue", "square", 3.2)


def describe(contender: SearchedContender, point: SearchedPoint, search: SearchResult) -> str:
    """`norm, point 17: threshold=0.53, val/accuracy 94.12, pruned after 5 epochs`."""
    words = [f"{contender.label}, point {point.number}: {search_sentences.place(point, _names(search))}"]
    for number, metric in enumerate(search.measures):
        if math.isfinite(point.score(number)):
            words.append(f"{metric.name} {numbers.mean(point.score(number), metric)}")
    if point.diverged:
        words.append(f"diverged on {point.diverged} of {point.lanes}")
    if point.state == "pruned":
        words.append(f"pruned after {numbers.count(point.epochs, 'epoch')}")
    elif point.state != "complete":
        words.append(point.state)
    return ", ".join(words)


def _names(search: SearchResult) -> Mapping[str, str]:
    return search_sentences.names(search.swept)


def history(search: SearchResult, number: int) -> Figure | None:
    """A panel for each contender that was tried."""
    rows = [row for row in search.found if row.contender.tried]
    if not rows:
        return None
    known = scores(search, number)
    fresh = (
        " Gray band: the best point on fresh seeds, with its 95 % interval. If the line ends on the better side of the "
        "band, the search promised too much."
    )
    caption = (
        f"Mean {known.metric.name} over the search seeds of each point, in the order in which they were tried. "
        f"{legend(search)}{known.cut} Green line: the best so far.{fresh if is_confirmed(search, number) else ''}"
    )
    name = f"history-{number + 1}" if number else "history"
    by = f" ({known.metric.name})" if len(search.measures) > 1 else ""
    return Figure(
        name, f"How did the search go?{by}", caption, tuple(_history_panel(row, known, search) for row in rows)
    )


def _history_panel(row: ContenderResult, known: Scores, search: SearchResult) -> Panel:
    contender = row.contender
    panel = Panel(WIDTH, HEIGHT, f"The search of {contender.label}", _history_description(row, search))
    panel.heading(contender.label)
    last = max(search.swept.trials - 1, *(point.number for point in contender.points))
    axes = Axes(panel, Scale(-0.5, last + 0.5, LEFT, RIGHT), known.axis, known.label, "point")
    axes.level(*shown(row.promises[known.number].confirmed, known.metric))
    best = _best_so_far(row, known)
    if best:
        end = max(point.number for point in contender.points if point.state != "running")
        axes.line([*best, (end + 0.5, best[-1][1])], "green")
    draw_points(axes, row, {point.number: float(point.number) for point in contender.points}, known, search)
    return panel


def _best_so_far(row: ContenderResult, known: Scores) -> list[Point]:
    """The corners of a line in steps, from the first point that was trained to its end."""
    best: list[Point] = []
    for point in (point for point in row.contender.points if point.is_steady):
        score = known.height(point)
        if not best or known.metric.sign * (score - best[-1][1]) > 0:
            best.append((point.number, score))
    return staircase(best)


def _history_description(row: ContenderResult, search: SearchResult) -> str:
    winner, contender = row.contender.winning, row.contender
    counts = f"{contender.tried} points, {contender.count('pruned')} pruned"
    if winner is None:
        return f"{counts}; nothing found."
    promises = "; ".join(
        f"{each.measure.name} {numbers.mean(each.searched, each.measure)} searched, "
        f"{numbers.estimate(each.confirmed, each.measure)} on fresh seeds"
        for each in row.promises
    )
    found = search_sentences.place(winner, search_sentences.names(search.swept))
    return f"{counts}; found {found} at point {winner.number}: {promises}."


def slices(search: SearchResult, number: int) -> Figure | None:
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
    panels = tuple(_slice_panel(row, param, known, search) for row, param in pairs)
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


def _slice_panel(row: ContenderResult, param: SearchedHyperparameter, known: Scores, search: SearchResult) -> Panel:
    label, contender = search_sentences.names(search.swept)[param.path], row.contender
    panel = Panel(WIDTH, HEIGHT, f"{label} of {contender.label}", _slice_description(row, param))
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


def _slice_description(row: ContenderResult, param: SearchedHyperparameter) -> str:
    winner, value = row.contender.winning, search_sentences.value
    found = f"found {value(winner.values.get(param.path))}" if winner else "nothing found"
    among = ", ".join(map(value, param.choices)) or f"{value(param.low)} to {value(param.high)}"
    return f"{row.contender.tried} points among {among}; {found}."
