"""The legend of a report: what the columns of its tables mean, and the words that stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from clipbench.analysis.report_model import Report
from clipbench.reporting import comparison_tables, search_tables
from clipbench.reporting.table import Table, TableColumn


def of_report(report: Report, *, full: bool = True) -> tuple[str, ...]:
    """The legend of all tables of the report; without `full`, not of those of every strategy and threshold."""
    tables: list[Table[Any]] = [
        table for setting in report.settings for table in comparison_tables.tables(setting, full=full)
    ]
    return lines([*tables, *(search_tables.tables(report.search) if report.search else [])])


def lines(tables: Iterable[Table[Any]]) -> tuple[str, ...]:
    """`p (Holm): Two-sided p-value of ...`: a line for each column of the tables, then one for each verdict."""
    every = list(tables)
    columns = (line(column) for table in every for column in table.columns)
    return tuple(dict.fromkeys((*columns, *_verdicts(every))))


def line(column: TableColumn[Any]) -> str:
    return f"{column.header}: {column.meaning}"


def _verdicts(tables: Iterable[Table[Any]]) -> Iterator[str]:
    for table in tables:
        for number, column in enumerate(table.columns):
            used = {cells[number].text for cells in table.cells} if column.words else ()
            yield from (f"{word}: {meaning}" for word, meaning in column.words.items() if word in used)
