"""The points of a search: their scores in the order in which they were tried, and two scores against each other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clipbench.analysis.report_model import ContenderResult, Metric, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.figures.chart_axes import (
    Axes,
    Scale,
    front,
    metric_label,
    scale,
    shown,
    spans_decades,
    staircase,
)
from clipbench.reporting.figures.drawing import Figure, Panel
from clipbench.store.sweep_file import SearchedContender, SearchedPoint

WIDTH, HEIGHT = 330.0, 240.0
LEFT, RIGHT, TOP, FLOOR = 44.0, 318.0, 46.0, 196.0
FRONT_HEIGHT, FRONT_FLOOR = 260.0, 212.0
LEGEND = {
    "circle": "● a point",
    "square": "■ one that the YAML or the pilot gave",
    "ring": "○ pruned",
    "cross": "× diverged or failed",
    "diamond": "◆ the best point",
}
BEST = ("orange", "diamond", 5.0)
FARTHEST = 3.0  # scores farther from the best than this many times the median's distance are drawn at the edge


@dataclass(frozen=True)
class Objective:
    """An objective of a search, and its axis, which all contenders share so that they can be compared."""

    search: SearchResult
    number: int
    axis: Scale
    is_cut: bool  # points that are much worse than most are drawn at its edge

    @property
    def metric(self) -> Metric:
        return self.search.measures[self.number]

    @property
    def label(self) -> str:
        return metric_label(self.metric, self.axis)

    def height(self, point: SearchedPoint) -> float:
        """The score; the worse end for a point that diverged or failed, whose score has a penalty."""
        score = numbers.scale(self.metric) * point.score(self.number)
        if math.isfinite(score) and not point.diverged and point.state != "failed":
            return score
        return self.axis.low if self.metric.higher_is_better else self.axis.high

    def loss(self, point: SearchedPoint) -> float:
        """The same, turned so that less is better."""
        return -self.metric.sign * self.height(point)

    @property
    def cut(self) -> str:
        return " Points that are much worse are drawn at the edge." if self.is_cut else ""

    @property
    def legend(self) -> str:
        """What the marks that occur mean."""
        finished = [
            (p, row.contender) for row in self.search.found for p in row.contender.points if p.state != "running"
        ]
        used = {_look(point, contender)[1] for point, contender in finished}
        return f"{', '.join(words for shape, words in LEGEND.items() if shape in used)}.{self.cut}"

    def figure(self, name: str, title: str, caption: str, fresh: str, panels: Iterable[Panel]) -> Figure:
        """A figure that each objective has; its caption ends with `fresh` where there are fresh seeds."""
        confirmed = any(
            row.confirmations[self.number].confirmed.n for row in self.search.found if row.contender.winning
        )
        return Figure(
            f"{name}-{self.number + 1}" if self.number else name,
            f"{title} ({self.metric.name})" if len(self.search.measures) > 1 else title,
            f"{caption}{fresh if confirmed else ''}",
            tuple(panels),
        )


def objective(search: SearchResult, number: int, start: float = FLOOR, end: float = TOP) -> Objective:
    metric = search.measures[number]
    factor = numbers.scale(metric)
    steady = [factor * p.score(number) for row in search.found for p in row.contender.points if p.is_steady]
    near = _near(steady, metric.sign, log=not metric.is_share and spans_decades(steady))
    fresh = [
        end for row in search.found for end in shown(row.confirmations[number].confirmed, metric) if math.isfinite(end)
    ]
    log = not metric.is_share and spans_decades([*near, *fresh])
    return Objective(search, number, scale([*near, *fresh], start, end, log=log), len(near) < len(steady))


def _near(values: list[float], sign: int, *, log: bool) -> list[float]:
    """Without those that are so much worse than most that the others could not be told apart."""
    if not values:
        return []
    places = [math.log(value) if log else value for value in values]
    best = max(sign * place for place in places) * sign
    farthest = FARTHEST * abs(best - statistics.median(places))
    return [value for value, place in zip(values, places, strict=True) if abs(best - place) <= farthest]


def draw_points(axes: Axes, contender: SearchedContender, x: Mapping[int, float], known: Objective) -> None:
    """A mark for each finished point that has a finite place in `x`; the best one last, so that nothing covers it."""
    points = [point for point in contender.points if math.isfinite(x[point.number]) and point.state != "running"]
    for point in sorted(points, key=lambda point: point.number == contender.winner):
        color, shape, size = _look(point, contender)
        title = describe(contender, point, known.search)
        axes.mark(x[point.number], known.height(point), color, shape, title, size)


def _look(point: SearchedPoint, contender: SearchedContender) -> tuple[str, str, float]:
    if point.number == contender.winner:
        return BEST
    if point.diverged or point.state == "failed":
        return "orange", "cross", 4
    if point.state == "pruned":
        return "gray", "ring", 3.5
    return ("blue", "circle", 3.5) if point.origin == "search" else ("blue", "square", 3.2)


def describe(contender: SearchedContender, point: SearchedPoint, search: SearchResult) -> str:
    """`norm, point 17: threshold=0.53, val/accuracy 94.12, pruned after 5 epochs`."""
    place = search_sentences.place(point, search_sentences.names(search.swept))
    words = [f"{contender.label}, point {point.number}: {place}"]
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


def history(search: SearchResult, number: int) -> Figure | None:
    """A panel for each contender that was tried."""
    rows = [row for row in search.found if row.contender.tried]
    if not rows:
        return None
    known = objective(search, number)
    fresh = (
        " Gray band: the best point on fresh seeds, with its 95 % interval. If the line ends on the better side of the "
        "band, the search was optimistic."
    )
    caption = (
        f"Mean {known.metric.name} over the search seeds of each point, in the order in which they were tried. "
        f"{known.legend} Green line: the best so far."
    )
    panels = (_history_panel(row, known) for row in rows)
    return known.figure("history", "How did the search go?", caption, fresh, panels)


def _history_panel(row: ContenderResult, known: Objective) -> Panel:
    contender, swept = row.contender, known.search.swept
    description = _history_description(row, search_sentences.names(swept))
    panel = Panel(WIDTH, HEIGHT, f"The search of {contender.label}", description, contender.label)
    last = max(swept.trials - 1, *(point.number for point in contender.points))
    axes = Axes(panel, Scale(-0.5, last + 0.5, LEFT, RIGHT), known.axis, known.label, "point")
    axes.level(*shown(row.confirmations[known.number].confirmed, known.metric))
    steady = [point for point in contender.points if point.is_steady]
    best = [(point.number, known.height(point)) for point in front(steady, lambda p: (p.number, known.loss(p)))]
    if best:
        end = max(point.number for point in contender.points if point.state != "running")
        axes.line([*staircase(best), (end + 0.5, best[-1][1])], "green")
    draw_points(axes, contender, {point.number: float(point.number) for point in contender.points}, known)
    return panel


def _history_description(row: ContenderResult, names: Mapping[str, str]) -> str:
    winner, contender = row.contender.winning, row.contender
    counts = f"{contender.tried} points, {contender.count('pruned')} pruned"
    if winner is None:
        return f"{counts}; nothing found."
    confirmations = "; ".join(
        f"{each.measure.name} {numbers.mean(each.searched, each.measure)} searched, "
        f"{numbers.estimate(each.confirmed, each.measure)} on fresh seeds"
        for each in row.confirmations
    )
    return f"{counts}; found {search_sentences.place(winner, names)} at point {winner.number}: {confirmations}."


def objectives(search: SearchResult, number: int) -> Figure | None:
    """The first objective against another one, a panel for each contender."""
    contenders = [row.contender for row in search.found if any(point.is_steady for point in row.contender.points)]
    if not contenders:
        return None
    x, y = objective(search, number, LEFT, RIGHT), objective(search, 0, FRONT_FLOOR)
    every = _front([point for contender in contenders for point in contender.points], x, y)
    caption = (
        f"Each point's {y.metric.name} against its {x.metric.name}, means over the search seeds. ● and the green "
        "line: no other point of the contender is better in both; ○ one is. ◆ the one that was confirmed. Dashed: "
        f"the points that no point of any contender beats in both.{x.cut or y.cut}"
    )
    name = f"front-{number + 1}" if number > 1 else "front"
    panels = tuple(_front_panel(contender, every, x, y) for contender in contenders)
    return Figure(name, f"What does {y.metric.name} cost in {x.metric.name}?", caption, panels)


def _front(points: Iterable[SearchedPoint], x: Objective, y: Objective) -> list[SearchedPoint]:
    steady = [point for point in points if point.is_steady]
    return front(steady, lambda point: (x.loss(point), y.loss(point)))


def _front_panel(contender: SearchedContender, every: Sequence[SearchedPoint], x: Objective, y: Objective) -> Panel:
    own = _front(contender.points, x, y)
    points = "; ".join(describe(contender, point, x.search) for point in own)
    title, description = f"Objectives of {contender.label}", f"Not beaten: {points}."
    axes = Axes(Panel(WIDTH, FRONT_HEIGHT, title, description, contender.label), x.axis, y.axis, y.label, x.label)
    axes.line(staircase([(x.height(point), y.height(point)) for point in every]), "muted", 1.1, "4 3")
    axes.line(staircase([(x.height(point), y.height(point)) for point in own]), "green")
    steady = [point for point in contender.points if point.is_steady]
    for point in sorted(steady, key=lambda point: (point.number == contender.winner, point in own)):
        look = ("green", "circle", 4.5) if point in own else ("gray", "ring", 3.5)
        color, shape, size = BEST if point.number == contender.winner else look
        axes.mark(x.height(point), y.height(point), color, shape, describe(contender, point, x.search), size)
    return axes.panel
