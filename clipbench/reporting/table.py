"""What the tables of a report are made of: columns that know what they mean, and the rows that they describe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from clipbench.analysis.report_model import Metric
from clipbench.reporting import numbers
from clipbench.stats import Estimate

RowT = TypeVar("RowT")


def _itself(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class TableColumn(Generic[RowT]):
    """A column: its title and unit, what it means, and what its cells hold.

    Every format writes `text`. The HTML page sorts by `exact` and shows it on request. The legends, the hints of the
    page and the documentation take `meaning` and `words`.
    """

    title: str
    meaning: str
    value: Callable[[RowT], Any]  # None where the row has no value
    text: Callable[[Any], str] = str  # of a value
    exact: Callable[[Any], float | str] = _itself  # of a value, in full precision and in the unit
    unit: str = ""
    is_text: bool = False  # aligned left, sorted as words
    words: Mapping[str, str] = field(default_factory=dict)  # of a column of verdicts: what each means
    term: str = ""  # in the legend, where the header says too little

    @property
    def header(self) -> str:
        """The title with its unit: `test/accuracy %`, `vs none (pp)`."""
        return f"{self.title} %" if self.unit == "%" else f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def legend(self) -> str:
        return f"{self.term or self.header}: {self.meaning}"


@dataclass(frozen=True)
class Cell:
    """What one row holds in one column."""

    column: TableColumn[Any]
    text: str
    exact: float | str
    meaning: str  # of a verdict

    @property
    def is_finite(self) -> bool:
        return isinstance(self.exact, float | int) and math.isfinite(self.exact)


@dataclass(frozen=True)
class Table(Generic[RowT]):
    """Columns and rows, the same for every format."""

    name: str  # by which a page links to it
    title: str
    columns: tuple[TableColumn[RowT], ...]
    rows: tuple[RowT, ...]

    @cached_property
    def cells(self) -> list[list[Cell]]:
        """The cells of each row."""
        return [[_cell(column, row) for column in self.columns] for row in self.rows]


def _cell(column: TableColumn[RowT], row: RowT) -> Cell:
    value = column.value(row)
    if value is None:
        return Cell(column, numbers.NOTHING, "" if column.is_text else math.nan, "")
    text = column.text(value)
    return Cell(column, text, column.exact(value), column.words.get(text, ""))


def mean_column(
    title: str,
    meaning: str,
    measure: Metric,
    value: Callable[[RowT], Estimate | float | None],
    *,
    is_difference: bool = False,
) -> TableColumn[RowT]:
    """A column of means of a measure, with their intervals where they are known.

    Accuracies are shown in per cent, their differences in percentage points and with a sign.
    """

    def mean(found: Estimate | float) -> float:
        return found.mean if isinstance(found, Estimate) else found

    def text(found: Estimate | float) -> str:
        if isinstance(found, Estimate):
            return numbers.estimate(found, measure, signed=is_difference)
        return numbers.mean(found, measure)

    unit = ("pp" if is_difference else "%") if measure.is_share else ""
    return TableColumn(title, meaning, value, text, exact=lambda found: numbers.scale(measure) * mean(found), unit=unit)


def share_column(title: str, meaning: str, value: Callable[[RowT], float]) -> TableColumn[RowT]:
    """A column of shares, shown in per cent."""
    return TableColumn(title, meaning, value, numbers.share, exact=lambda share: 100 * share)
