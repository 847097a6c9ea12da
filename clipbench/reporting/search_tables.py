"""The tables of a search: what it promised and what held, what it cost, what mattered, what cannot be beaten."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clipbench.analysis.report_model import ContenderResult, Metric, SearchResult
from clipbench.reporting import numbers, search_column_meaning, search_sentences
from clipbench.reporting.columns import Column, Grid, Value, grid_of
from clipbench.store.sweep_file import SearchedContender, SearchedPoint

MOST_COLUMNS = 2  # of hyperparameters, each with a column of its own; more stand in one column, as words
CONTENDER, FOUND = "contender", "found"
TEXT = frozenset({CONTENDER, FOUND, "promise", "beaten by"})


@dataclass(frozen=True)
class Peer:
    """A point of a contender's front, and the first contender that beats it in everything."""

    contender: SearchedContender
    point: SearchedPoint
    beaten_by: str


def grids(search: SearchResult) -> list[Grid]:
    """In the order in which they are read; only those that have something to show."""
    found = [promises(search, number) for number in range(len(search.measures))]
    others = (effort(search), importances(search), pareto(search))
    return [*found, *(grid for grid in others if grid.cells)]


def promises(search: SearchResult, number: int = 0) -> Grid:
    """One objective: what the search promised, and what fresh seeds show."""
    measure = search.measures[number]
    columns: list[Column[ContenderResult]] = [_contender(), *_values(search)]
    columns += [
        Column(
            "searched",
            lambda row: numbers.mean(row.promises[number].searched, measure),
            search_column_meaning.searched(search.swept, measure),
            lambda row: numbers.scale(measure) * row.promises[number].searched,
        ),
        Column(
            "fresh",
            lambda row: numbers.estimate(row.promises[number].confirmed, measure),
            search_column_meaning.fresh(search.swept, measure),
            lambda row: numbers.scale(measure) * row.promises[number].confirmed.mean,
        ),
        Column(
            f"optimism{numbers.difference_unit(measure)}",
            lambda row: numbers.estimate(row.promises[number].optimism, measure, signed=True),
            search_column_meaning.OPTIMISM,
            lambda row: numbers.scale(measure) * row.promises[number].optimism.mean,
        ),
        Column(
            "promise",
            lambda row: row.promises[number].verdict,
            search_column_meaning.PROMISE,
            lambda row: row.promises[number].verdict,
        ),
    ]
    head = "The same points by" if number else "What the search found, by"
    name = f"promises-{number + 1}" if number else "promises"
    return grid_of(name, f"{head} {numbers.unit(measure)}", columns, search.found, TEXT)


def effort(search: SearchResult) -> Grid:
    """What became of the points, and what share of the training each contender took."""
    columns: list[Column[ContenderResult]] = [
        _contender(),
        _count("points", search_column_meaning.POINTS, "complete", "pruned", "failed"),
        _count("complete", search_column_meaning.COMPLETE, "complete"),
        _count("pruned", search_column_meaning.PRUNED, "pruned"),
        Column(
            "diverged",
            lambda row: str(_diverged(row)),
            search_column_meaning.DIVERGED,
            lambda row: float(_diverged(row)),
        ),
        _count("failed", search_column_meaning.FAILED, "failed"),
        Column(
            "budget", lambda row: numbers.share(row.budget), search_column_meaning.BUDGET, lambda row: 100 * row.budget
        ),
    ]
    rows = [row for row in search.found if row.contender.hyperparameters]
    return grid_of("effort", "What the search took", columns, rows, TEXT)


def importances(search: SearchResult) -> Grid:
    """How much of the differences between points each hyperparameter explains, where there are several."""
    rows = [row for row in search.found if len(row.contender.importances) > 1]
    paths = dict.fromkeys(path for row in rows for path in row.contender.importances)
    names = search_sentences.names(search.swept)
    columns: list[Column[ContenderResult]] = [
        _contender(),
        *(_importance(path, names.get(path, path)) for path in paths),
    ]
    return grid_of("importances", "What mattered", columns, rows, TEXT)


def pareto(search: SearchResult) -> Grid:
    """Of several objectives: the points that no other point of their contender beats in all of them."""
    names = search_sentences.names(search.swept)
    columns: list[Column[Peer]] = [
        Column(
            CONTENDER,
            lambda row: row.contender.label + _star(row),
            search_column_meaning.CONTENDER,
            lambda r: r.contender.label,
        ),
        Column(
            "point",
            lambda row: str(row.point.number),
            search_column_meaning.NUMBER,
            lambda row: float(row.point.number),
        ),
        Column(
            FOUND,
            lambda row: search_sentences.place(row.point, names),
            search_column_meaning.FOUND,
            lambda r: search_sentences.place(r.point, names),
        ),
        *(_score(number, measure) for number, measure in enumerate(search.measures)),
        Column(
            "beaten by",
            lambda row: row.beaten_by or numbers.NOTHING,
            search_column_meaning.BEATEN,
            lambda r: r.beaten_by,
        ),
    ]
    return grid_of("pareto", "Pareto table: a choice between objectives", columns, list(peers(search)), TEXT)


def peers(search: SearchResult) -> Iterator[Peer]:
    """Every contender's front from its best in the first objective on, against the fronts of all others."""
    measures = search.measures
    fronts = {row.contender.label: row.contender.front for row in search.found}
    for row in search.found:
        for point in sorted(row.contender.front, key=lambda each: -measures[0].sign * each.score(0)):
            beats = (label for label, front in fronts.items() if any(_beats(other, point, measures) for other in front))
            yield Peer(row.contender, point, next(beats, ""))


def _beats(one: SearchedPoint, other: SearchedPoint, measures: Sequence[Metric]) -> bool:
    """No worse in any objective, and better in one."""
    gains = [m.sign * (one.score(n) - other.score(n)) for n, m in enumerate(measures)]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


def _star(row: Peer) -> str:
    return " *" if row.point.number == row.contender.winner else ""


def _score(number: int, measure: Metric) -> Column[Peer]:
    return Column(
        numbers.unit(measure),
        lambda row: numbers.mean(row.point.score(number), measure),
        search_column_meaning.score(measure),
        lambda row: numbers.scale(measure) * row.point.score(number),
    )


def _contender() -> Column[ContenderResult]:
    return Column(
        CONTENDER, lambda row: row.contender.label, search_column_meaning.CONTENDER, lambda row: row.contender.label
    )


def _values(search: SearchResult) -> Iterator[Column[ContenderResult]]:
    """A column a hyperparameter as long as they are few."""
    names = search_sentences.names(search.swept)
    if len(names) > MOST_COLUMNS:
        yield Column(FOUND, lambda row: _place(row, names), search_column_meaning.FOUND, lambda row: _place(row, names))
        return
    for path, name in names.items():
        yield _hyperparameter(path, name)


def _place(row: ContenderResult, names: dict[str, str]) -> str:
    return search_sentences.place(row.contender.winning, names) if row.contender.winning else numbers.NOTHING


def _hyperparameter(path: str, name: str) -> Column[ContenderResult]:
    def value(row: ContenderResult) -> Value:
        known = row.contender.winning.values.get(path) if row.contender.winning else None
        return math.nan if known is None else float(known) if isinstance(known, float | int) else known

    def text(row: ContenderResult) -> str:
        winner = row.contender.winning
        return search_sentences.value(winner.values[path]) if winner and path in winner.values else numbers.NOTHING

    return Column(name, text, search_column_meaning.param(path), value)


def _count(header: str, tip: str, *states: str) -> Column[ContenderResult]:
    return Column(
        header, lambda row: str(row.contender.count(*states)), tip, lambda row: float(row.contender.count(*states))
    )


def _diverged(row: ContenderResult) -> int:
    return sum(bool(point.diverged) for point in row.contender.points)


def _importance(path: str, name: str) -> Column[ContenderResult]:
    def share(row: ContenderResult) -> float:
        return row.contender.importances.get(path, math.nan)

    return Column(
        name, lambda row: numbers.share(share(row)), search_column_meaning.IMPORTANCE, lambda row: 100 * share(row)
    )
