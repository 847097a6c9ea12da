"""The tables of a search: what it found and what fresh seeds show, what it cost, which options mattered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from clipbench.analysis import search_result
from clipbench.analysis.report_model import ContenderResult, Metric, SearchResult
from clipbench.reporting import numbers, search_sentences
from clipbench.reporting.table import Table, TableColumn, mean_column, share_column
from clipbench.store.sweep_file import SearchedContender, SearchedPoint

MOST_COLUMNS = 2  # of options beside the scores; more are written into a table of their own
CONTENDER = "A clipping strategy whose options were searched, or that has none to search."
FOUND = "The values of the searched options."

AGREEMENT = {
    search_result.CONFIRMED: "The searched score lies within the 95 % interval of the fresh seeds.",
    search_result.OPTIMISTIC: "Fresh seeds are worse than the searched score.",
    search_result.PESSIMISTIC: "Fresh seeds are better than the searched score.",
    search_result.NOT_CONFIRMED: "The fresh seeds are not trained yet.",
    search_result.NOT_SEARCHED: "There was nothing to search.",
}


@dataclass(frozen=True)
class FrontPoint:
    """A point of a contender's Pareto front, and the first contender that dominates it."""

    contender: SearchedContender
    point: SearchedPoint
    dominated_by: str


def tables(search: SearchResult) -> list[Table[ContenderResult] | Table[FrontPoint]]:
    """The tables in the order in which they are read; only those that have rows."""
    scores = [confirmations(search, number) for number in range(len(search.measures))]
    every: list[Table[ContenderResult] | Table[FrontPoint]] = [best_points(search), *scores]
    every += [effort(search), importances(search), pareto(search)]
    return [table for table in every if table.rows]


def best_points(search: SearchResult) -> Table[ContenderResult]:
    """The values of the best points, where they are too many for a column each beside the scores."""
    names = search_sentences.names(search.swept)

    def place(row: ContenderResult) -> str | None:
        return search_sentences.place(row.contender.winning, names) if row.contender.winning else None

    columns = (_contender(), TableColumn("found", FOUND, value=place, is_text=True))
    return Table("found", "What the search found", columns, search.found if _has_many_options(search) else ())


def confirmations(search: SearchResult, number: int = 0) -> Table[ContenderResult]:
    """One objective: the searched score of each point, and its score on fresh seeds."""
    measure = search.measures[number]
    seeds = numbers.seeds(search.swept.search_seeds)
    columns: tuple[TableColumn[ContenderResult], ...] = (
        _contender(),
        *(() if _has_many_options(search) else _options(search)),
        mean_column(
            "searched",
            f"Mean over the search seeds ({seeds}) at the best point, by which it was chosen.",
            measure,
            lambda row: row.confirmations[number].searched,
        ),
        mean_column(
            "fresh",
            "Mean over seeds that the search did not use ± half-width of its 95 % t interval.",
            measure,
            lambda row: row.confirmations[number].confirmed,
        ),
        mean_column(
            "bias",
            "How much better the searched score is than the fresh one. Some bias is expected, because the best of many "
            "noisy scores was selected.",
            measure,
            lambda row: row.confirmations[number].bias,
            is_difference=True,
        ),
        TableColumn(
            "agreement",
            "Whether the searched score agrees with the fresh seeds.",
            value=lambda row: row.confirmations[number].verdict,
            is_text=True,
            words=AGREEMENT,
        ),
    )
    head = "The same points by" if number or _has_many_options(search) else "What the search found, by"
    name = f"confirmations-{number + 1}" if number else "confirmations"
    return Table(name, f"{head} {numbers.unit(measure)}", columns, search.found)


def effort(search: SearchResult) -> Table[ContenderResult]:
    """What became of the points, and what share of the training each contender took."""
    columns: tuple[TableColumn[ContenderResult], ...] = (
        _contender(),
        _count(
            "points",
            "Points that were tried: values of all searched options, trained on every search seed.",
            "complete",
            "pruned",
            "failed",
        ),
        _count("complete", "Points that were trained to their last epoch.", "complete"),
        _count("pruned", "Points that were stopped early because others were better by then.", "pruned"),
        TableColumn(
            "diverged",
            "Points of which at least one trial diverged.",
            value=lambda row: sum(bool(point.diverged) for point in row.contender.points),
            term="diverged points",
        ),
        _count("failed", "Points whose training ended with an error.", "failed"),
        share_column(
            "budget",
            "Share of all epochs of the search; a pruned point counts with the epochs that it was trained for.",
            lambda row: row.budget,
        ),
    )
    rows = tuple(row for row in search.found if row.contender.hyperparameters)
    return Table("effort", "Cost of the search", columns, rows)


def importances(search: SearchResult) -> Table[ContenderResult]:
    """How much of the differences between points each option explains; where there are several options."""
    rows = tuple(row for row in search.found if len(row.contender.importances) > 1)
    paths = dict.fromkeys(path for row in rows for path in row.contender.importances)
    names = search_sentences.names(search.swept)
    columns = (_contender(), *(_importance(path, names.get(path, path)) for path in paths))
    return Table("importances", "Importance of options", columns, rows)


def pareto(search: SearchResult) -> Table[FrontPoint]:
    """Of several objectives: the points that no other point of their contender beats in all of them."""
    names = search_sentences.names(search.swept)

    def label(row: FrontPoint) -> str:
        return f"{row.contender.label} *" if row.point.number == row.contender.winner else row.contender.label

    columns: tuple[TableColumn[FrontPoint], ...] = (
        TableColumn("contender", CONTENDER, value=label, is_text=True),
        TableColumn(
            "point",
            "Number of the point in the order of the search; * marks the one that was confirmed.",
            value=lambda row: row.point.number,
        ),
        TableColumn("found", FOUND, value=lambda row: search_sentences.place(row.point, names), is_text=True),
        *(_score(number, measure) for number, measure in enumerate(search.measures)),
        TableColumn(
            "dominated by",
            "A contender with a point that is no worse in any objective and better in one.",
            value=lambda row: row.dominated_by or None,
            is_text=True,
        ),
    )
    return Table("pareto", "Pareto table: trade-off between objectives", columns, tuple(front_points(search)))


def front_points(search: SearchResult) -> Iterator[FrontPoint]:
    """The points of every contender's front, the best in the first objective first."""
    measures = search.measures
    fronts = {row.contender.label: row.contender.front for row in search.found}
    for row in search.found:
        for point in sorted(row.contender.front, key=lambda each: -measures[0].sign * each.score(0)):
            beats = (label for label, front in fronts.items() if any(_beats(other, point, measures) for other in front))
            yield FrontPoint(row.contender, point, next(beats, ""))


def _beats(one: SearchedPoint, other: SearchedPoint, measures: Sequence[Metric]) -> bool:
    """No worse in any objective, and better in one."""
    gains = [m.sign * (one.score(n) - other.score(n)) for n, m in enumerate(measures)]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


def _score(number: int, measure: Metric) -> TableColumn[FrontPoint]:
    better = "higher" if measure.higher_is_better else "lower"
    meaning = f"Mean over the search seeds; {better} is better."
    return mean_column(measure.name, meaning, measure, lambda row: row.point.score(number))


def _contender() -> TableColumn[ContenderResult]:
    return TableColumn("contender", CONTENDER, value=lambda row: row.contender.label, is_text=True)


def _has_many_options(search: SearchResult) -> bool:
    return len(search_sentences.names(search.swept)) > MOST_COLUMNS


def _options(search: SearchResult) -> Iterator[TableColumn[ContenderResult]]:
    return (_option(path, name) for path, name in search_sentences.names(search.swept).items())


def _option(path: str, name: str) -> TableColumn[ContenderResult]:
    def value(row: ContenderResult) -> SearchedPoint | None:
        return row.contender.winning if row.contender.winning and path in row.contender.winning.values else None

    def exact(point: SearchedPoint) -> float | str:
        found = point.values[path]
        return float(found) if isinstance(found, float | int) else str(found)

    return TableColumn(
        name,
        f"The value of {path} at the best point.",
        value,
        text=lambda point: search_sentences.value(point.values[path]),
        exact=exact,
    )


def _count(title: str, meaning: str, *states: str) -> TableColumn[ContenderResult]:
    return TableColumn(title, meaning, value=lambda row: row.contender.count(*states), exact=float)


def _importance(path: str, name: str) -> TableColumn[ContenderResult]:
    column: TableColumn[ContenderResult] = share_column(
        name,
        "Share of the differences between points that the option explains, as Optuna estimates it.",
        lambda row: row.contender.importances.get(path, math.nan),
    )
    return replace(column, term=f"importance of {name}")
