"""The chapters of a report, which every format walks: a conclusion, then the tables, warnings and notes behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clipbench.analysis.report_model import Report, SearchResult
from clipbench.reporting import answer, comparison_tables, headline, notes, search_sentences, search_tables
from clipbench.reporting.notes import Flag
from clipbench.reporting.table import Table


@dataclass(frozen=True)
class Chapter:
    """The comparison of one setting, or the search that found the arms."""

    key: str  # `1`, `2`, ... for the settings, `search`
    title: str  # empty where the report has one setting
    headline: str
    tables: Sequence[Table[Any]]
    flags: Sequence[Flag]
    notes: Sequence[str]


def chapters(report: Report, *, full: bool = True) -> list[Chapter]:
    """The settings, then the search; without `full`, without the tables of every strategy and threshold."""
    found = [
        Chapter(
            str(number),
            setting.label,
            headline.sentence(setting),
            comparison_tables.tables(setting, full=full),
            answer.flags(setting),
            notes.of_setting(setting),
        )
        for number, setting in enumerate(report.settings, start=1)
    ]
    if report.search:
        found.append(_search(report.search))
    return found


def _search(search: SearchResult) -> Chapter:
    return Chapter(
        "search",
        search_sentences.TITLE,
        search_sentences.headline(search),
        search_tables.tables(search),
        search_sentences.all_flags(search),
        tuple(search_sentences.notes(search.swept)),
    )


def legend(shown: Sequence[Chapter]) -> tuple[str, ...]:
    """`p (Holm): Two-sided p-value of ...`: a line for each column of the tables, then one for each verdict."""
    tables = [table for chapter in shown for table in chapter.tables]
    columns = (column.legend for table in tables for column in table.columns)
    return tuple(dict.fromkeys((*columns, *_verdicts(tables))))


def _verdicts(tables: Sequence[Table[Any]]) -> Iterator[str]:
    for table in tables:
        used = {cell.text for row in table.cells for cell in row if cell.column.words}
        for column in table.columns:
            yield from (f"{word}: {meaning}" for word, meaning in column.words.items() if word in used)
