"""Which columns each table has and what stands in its cells, as text, the same for every format."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from clipbench.analysis import verdicts
from clipbench.analysis.report_model import ArmResult, Contrast, Setting
from clipbench.reporting import column_meaning as meaning
from clipbench.reporting import numbers

Value = float | str
Line = TypeVar("Line")
WORDS = frozenset({"arm", "verdict"})


@dataclass(frozen=True)
class Column(Generic[Line]):
    """One measure of a table: how it is written, what it means, and by what it is sorted."""

    header: str
    text: Callable[[Line], str]
    meaning: str
    value: Callable[[Line], Value]


@dataclass(frozen=True)
class Grid:
    """A table as text. The columns named in `text` are words, the others numbers."""

    title: str
    headers: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    text: frozenset[str] = WORDS
    meanings: tuple[str, ...] = ()  # of the columns
    values: tuple[tuple[Value, ...], ...] = ()  # of the cells, in full precision
    name: str = ""  # by which a page links to it


def grids(setting: Setting, *, full: bool = True) -> list[Grid]:
    """The tables of a setting; the last one only where there is more to show than in the first."""
    # The other places of a tuned comparison are in the tables of the settings that it chose from.
    more = full and len(setting.rows) > len(setting.main) and not setting.tuned
    timed = any(row.reach for row in setting.main)
    found = [comparison(setting), details(setting), *([target(setting)] if timed else [])]
    return [*found, *([everything(setting)] if more else [])]


def comparison(setting: Setting) -> Grid:
    """What is concluded: a row a strategy at its best threshold, beside the baseline."""
    columns = [_arm(), _metric(setting)]
    if setting.baseline:
        columns += [_difference(setting), _p_value()]
    columns.append(Column("verdict", lambda row: row.verdict, meaning.VERDICT, lambda row: row.verdict))
    return grid_of("comparison", f"Comparison: {_chosen(setting)}", columns, setting.main)


def _chosen(setting: Setting) -> str:
    if setting.searched:
        equal = f", at equal {setting.equal}" if setting.equal else ""
        return f"each strategy as the search found it{equal}, on fresh seeds"
    return f"each strategy at its best {setting.choice}" if setting.metric.criterion else "every strategy and threshold"


def details(setting: Setting) -> Grid:
    """How the rows of the comparison behave: effect size, divergence, clipping and cost."""
    columns = [_arm()]
    if setting.baseline:
        columns += [_effect(), _wins()]
    columns.append(_diverged())
    norm: Column[ArmResult] = Column(
        "norm", lambda row: numbers.number(row.grad_norm), meaning.NORM, lambda row: row.grad_norm
    )
    step: Column[ArmResult] = Column(
        "µs/step", lambda row: numbers.number(row.step_us), meaning.STEP, lambda row: row.step_us
    )
    return grid_of("behaviour", "Behaviour of the same rows", [*columns, norm, _clipped(), step], setting.main)


def target(setting: Setting) -> Grid:
    """When the same rows reached the target, by what does not leave out those that never did."""
    columns = [_arm(), _reached(), _reach(), _restricted()]
    if setting.baseline:
        columns.append(_of_contrast("p (log-rank)", lambda c: numbers.p_value(c.p_reach), meaning.P_REACH, _p_reach))
    words = f": {setting.target}" if setting.target else ""
    return grid_of("target", f"Epochs to the target{words}", columns, setting.main)


def everything(setting: Setting) -> Grid:
    """Every strategy at every threshold; `*` marks the chosen ones."""
    columns: list[Column[ArmResult]] = [
        Column("arm", lambda row: row.label + _mark(row, setting), meaning.ARM, lambda row: row.label)
    ]
    if setting.metric.criterion:
        columns.append(_criterion(setting.metric.criterion))
    columns.append(_metric(setting))
    if setting.baseline:
        columns.append(_difference(setting))
    columns += [_diverged(), _clipped()]
    if any(not math.isnan(row.fraction) for row in setting.rows):
        columns.append(
            Column("elements", lambda row: numbers.share(row.fraction), meaning.ELEMENTS, lambda row: row.fraction)
        )
    return grid_of("everything", "Every strategy and threshold", columns, setting.rows)


def flags(setting: Setting) -> tuple[str, ...]:
    """A line for each row of the comparison that has something to be aware of."""
    return tuple(f"{row.label}: {', '.join(flag_words(row))}" for row in setting.main if row.flags)


def flag_words(row: ArmResult) -> list[str]:
    meanings = {
        "fires on > 95 % of steps": "fires on > 95 % of steps (the threshold acts as the learning rate)",
        "refuses > 95 % of steps": "refuses > 95 % of steps (what it shows was learned on the few others)",
    }
    return [meanings.get(flag, flag) for flag in row.flags]


def grid_of(
    name: str, title: str, columns: Sequence[Column[Line]], rows: Sequence[Line], text: Collection[str] = WORDS
) -> Grid:
    """A table with a line for each of the rows; the columns named in `text` are words."""
    return Grid(
        title,
        headers=tuple(column.header for column in columns),
        cells=tuple(tuple(column.text(row) for column in columns) for row in rows),
        meanings=tuple(column.meaning for column in columns),
        values=tuple(tuple(column.value(row) for column in columns) for row in rows),
        text=frozenset(text),
        name=name,
    )


def _arm() -> Column[ArmResult]:
    return Column("arm", lambda row: row.label, meaning.ARM, lambda row: row.label)


def _metric(setting: Setting) -> Column[ArmResult]:
    metric = setting.metric
    return Column(
        numbers.unit(metric),
        lambda row: numbers.estimate(row.value, metric),
        meaning.metric(metric),
        lambda row: numbers.scale(metric) * row.value.mean,
    )


def _criterion(name: str) -> Column[ArmResult]:
    scale = 100 if name.endswith("accuracy") else 1
    header = f"{name} %" if scale == 100 else name
    return Column(
        header,
        lambda row: numbers.number(scale * row.criterion),
        meaning.criterion(name),
        lambda row: scale * row.criterion,
    )


def _difference(setting: Setting) -> Column[ArmResult]:
    header = f"vs {setting.versus}{numbers.difference_unit(setting.metric)}"
    scale = numbers.scale(setting.metric)
    return _of_contrast(
        header,
        lambda contrast: numbers.estimate(contrast.difference, setting.metric, signed=True),
        meaning.difference(setting.baseline or ""),
        lambda contrast: scale * contrast.difference.mean,
    )


def _p_value() -> Column[ArmResult]:
    return _of_contrast("p (Holm)", lambda c: numbers.p_value(c.p_holm), meaning.P_HOLM, lambda c: c.p_holm)


def _effect() -> Column[ArmResult]:
    return _of_contrast("dz", lambda contrast: numbers.effect(contrast.dz), meaning.DZ, lambda contrast: contrast.dz)


def _wins() -> Column[ArmResult]:
    return _of_contrast("w-t-l", numbers.wins, meaning.WINS, lambda c: float(c.score.wins - c.score.losses))


def _diverged() -> Column[ArmResult]:
    return Column("diverged", numbers.diverged, meaning.DIVERGED, lambda row: float(row.diverged))


def _clipped() -> Column[ArmResult]:
    return Column(
        "clipped", lambda row: numbers.share(row.fired_share), meaning.CLIPPED, lambda row: 100 * row.fired_share
    )


def _p_reach(contrast: Contrast) -> float:
    return contrast.p_reach


def _reached() -> Column[ArmResult]:
    return Column(
        "reached",
        lambda row: f"{row.reach.reached} of {row.reach.trials}" if row.reach else numbers.NOTHING,
        meaning.REACHED,
        lambda row: float(row.reach.reached) if row.reach else math.nan,
    )


def _restricted() -> Column[ArmResult]:
    return Column(
        "restricted mean",
        lambda row: numbers.number(row.reach.restricted) if row.reach else numbers.NOTHING,
        meaning.RESTRICTED,
        lambda row: row.reach.restricted if row.reach else math.nan,
    )


def _reach() -> Column[ArmResult]:
    return Column(
        "median",
        lambda row: numbers.reach(row.reach),
        meaning.REACH,
        lambda row: row.reach.median if row.reach else math.nan,
    )


def _of_contrast(
    header: str, text: Callable[[Contrast], str], meaning: str, value: Callable[[Contrast], float]
) -> Column[ArmResult]:
    return Column(
        header,
        lambda row: text(row.contrast) if row.contrast else numbers.NOTHING,
        meaning,
        lambda row: value(row.contrast) if row.contrast else math.nan,
    )


def _mark(row: ArmResult, setting: Setting) -> str:
    is_choice = row.shown and setting.metric.criterion and row.verdict != verdicts.BASELINE
    return " *" if is_choice else ""
