"""A point of a search as a mark, and the axis on which its score stands: the same in every figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from clipbench.analysis.report_model import ContenderResult, Metric, SearchResult
from clipbench.reporting import numbers
from clipbench.reporting import search_sentences as words
from clipbench.reporting.figures.drawing import Mark
from clipbench.reporting.figures.panel import Panel
from clipbench.reporting.figures.scale import Scale, scale, spans_decades
from clipbench.store.sweep_file import SearchedContender, SearchedPoint

LEGEND = {
    "circle": "● a point",
    "square": "■ one that the YAML or the pilot gave",
    "ring": "○ pruned",
    "cross": "× diverged or failed",
    "diamond": "◆ the one that was found",
}
FARTHEST = 3.0  # of the distance from the best score to the middle one, from the best: what is worse stands at the edge


@dataclass(frozen=True)
class Scores:
    """The axis of an objective, shared by all contenders so that they can be compared."""

    number: int
    measure: Metric
    axis: Scale
    is_cut: bool  # points that are much worse than most stand at its edge

    @property
    def unit(self) -> str:
        log = ", log axis" if self.axis.log else ""
        better = "higher" if self.measure.higher_is_better else "lower"
        return f"{numbers.unit(self.measure)}{log} ({better} is better)"

    @property
    def worst(self) -> float:
        return self.axis.low if self.measure.higher_is_better else self.axis.high

    def height(self, point: SearchedPoint) -> float:
        """The score; what diverged or has none stands at the worse end, for its score holds a penalty."""
        score = numbers.scale(self.measure) * point.score(self.number)
        return score if math.isfinite(score) and not point.diverged and point.state != "failed" else self.worst


def legend(search: SearchResult) -> str:
    """Of the marks that there are."""
    used = {_look(p, row.contender)[1] for row in search.found for p in row.contender.points if p.state != "running"}
    return f"{', '.join(words for shape, words in LEGEND.items() if shape in used)}."


def is_confirmed(search: SearchResult, number: int) -> bool:
    return any(row.promises[number].confirmed.n for row in search.found if row.contender.winning)


def scores(search: SearchResult, number: int, start: float, end: float) -> Scores:
    measure = search.measures[number]
    factor = numbers.scale(measure)
    steady = [factor * p.score(number) for row in search.found for p in row.contender.points if p.is_steady]
    shown = _near(steady, measure.sign, log=not measure.is_share and spans_decades(steady))
    fresh = [row.promises[number].confirmed for row in search.found]
    ends = [factor * value for each in fresh for value in (each.low, each.mean, each.high) if math.isfinite(value)]
    log = not measure.is_share and spans_decades([*shown, *ends])
    axis = scale([*shown, *ends], start, end, log=log)
    return Scores(number, measure, axis, len(shown) < len(steady))


def _near(values: list[float], sign: int, *, log: bool) -> list[float]:
    """Without those that are so much worse than most that the others could not be told apart."""
    if not values:
        return []
    places = [math.log(value) if log else value for value in values]
    best = max(sign * place for place in places) * sign
    farthest = FARTHEST * abs(best - statistics.median(places))
    return [value for value, place in zip(values, places, strict=True) if abs(best - place) <= farthest]


def dots(
    row: ContenderResult, x: dict[int, float], panel: Panel, known: Scores, search: SearchResult
) -> Iterator[Mark]:
    """A mark a point that is not under way; the found one last, so that nothing covers it."""
    points = [point for point in row.contender.points if point.number in x and point.state != "running"]
    for point in sorted(points, key=lambda point: point.number == row.contender.winner):
        color, shape, size = _look(point, row.contender)
        title = describe(row.contender, point, search)
        yield panel.mark(x[point.number], known.height(point), color, shape, title, size)


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
    values = words.place(point, words.names(search.swept))
    scored = [
        f"{measure.name} {numbers.mean(point.score(number), measure)}"
        for number, measure in enumerate(search.measures)
        if math.isfinite(point.score(number))
    ]
    return ", ".join((f"{contender.label}, point {point.number}: {values}", *scored, *_fate(point)))


def _fate(point: SearchedPoint) -> Iterator[str]:
    if point.diverged:
        yield f"diverged on {point.diverged} of {point.lanes}"
    if point.state == "pruned":
        yield f"pruned after {numbers.count(point.epochs, 'epoch')}"
    elif point.state != "complete":
        yield point.state
