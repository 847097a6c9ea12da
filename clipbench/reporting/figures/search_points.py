"""The points of a search as marks, and the axis of their scores: the same in every figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from clipbench.analysis.report_model import ContenderResult, Metric, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.axes import Axes, Scale, metric_label, scale, shown, spans_decades
from clipbench.store.sweep_file import SearchedContender, SearchedPoint

WIDTH, HEIGHT = 330.0, 240.0
LEFT, RIGHT, TOP, FLOOR = 44.0, 318.0, 46.0, 196.0
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
