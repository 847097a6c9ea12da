"""Which columns each table has and what stands in its cells, as text, the same for every format."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from clipbench.report import formatting, verdict
from clipbench.report.tables import Contrast, Row, Setting

Cell = Callable[[Row], str]


@dataclass(frozen=True)
class Grid:
    """A table as text. The columns named in `text` are words, the others numbers."""

    title: str
    headers: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    text: frozenset[str] = frozenset({"arm", "verdict"})


def grids(setting: Setting, *, full: bool = True) -> list[Grid]:
    """The tables of a setting; the last one only where there is more to show than in the first."""
    more = full and len(setting.rows) > len(setting.main)
    return [comparison(setting), details(setting), *([everything(setting)] if more else [])]


def comparison(setting: Setting) -> Grid:
    """What is concluded: a row a strategy at its best threshold, beside the baseline."""
    metric = setting.metric
    columns: dict[str, Cell] = {
        "arm": lambda row: row.label,
        formatting.unit(metric): lambda row: formatting.estimate(row.value, metric),
    }
    if setting.baseline:
        columns[_difference_header(setting)] = _difference(setting)
        columns["p (Holm)"] = _of_contrast(lambda contrast: formatting.p_value(contrast.p_holm))
    columns["verdict"] = lambda row: row.verdict
    chosen = "each strategy at its best threshold" if metric.criterion else "every strategy and threshold"
    return _grid(f"Comparison: {chosen}", columns, setting.main)


def details(setting: Setting) -> Grid:
    """How the rows of the comparison behave: effect size, divergence, clipping and cost."""
    columns: dict[str, Cell] = {"arm": lambda row: row.label}
    if setting.baseline:
        columns["dz"] = _of_contrast(lambda contrast: formatting.effect(contrast.dz))
        columns["w-t-l"] = lambda row: formatting.wins(row.contrast)
    columns["diverged"] = formatting.diverged
    if any(row.reach for row in setting.main):
        columns["to target"] = lambda row: formatting.reach(row.reach)
    columns["norm"] = lambda row: formatting.number(row.grad_norm)
    columns["clipped"] = lambda row: formatting.share(row.fired_share)
    columns["µs/step"] = lambda row: formatting.number(row.step_us)
    return _grid("Behaviour of the same rows", columns, setting.main)


def everything(setting: Setting) -> Grid:
    """Every strategy at every threshold; `*` marks the chosen ones."""
    metric = setting.metric
    columns: dict[str, Cell] = {"arm": lambda row: row.label + _mark(row, setting)}
    if metric.criterion:
        percent = " %" if metric.criterion.endswith("accuracy") else ""
        scale = 100 if percent else 1
        columns[f"{metric.criterion}{percent}"] = lambda row: formatting.number(scale * row.criterion)
    columns[formatting.unit(metric)] = lambda row: formatting.estimate(row.value, metric)
    if setting.baseline:
        columns[_difference_header(setting)] = _difference(setting)
    columns["diverged"] = formatting.diverged
    columns["clipped"] = lambda row: formatting.share(row.fired_share)
    if any(not math.isnan(row.fraction) for row in setting.rows):
        columns["elements"] = lambda row: formatting.share(row.fraction)
    return _grid("Every strategy and threshold", columns, setting.rows)


def flags(setting: Setting) -> tuple[str, ...]:
    """A line for each row of the comparison that has something to be aware of."""
    meanings = {"fires on > 95 % of steps": "fires on > 95 % of steps (the threshold acts as the learning rate)"}
    return tuple(
        f"{row.label}: {', '.join(meanings.get(flag, flag) for flag in row.flags)}" for row in setting.main if row.flags
    )


def _grid(title: str, columns: dict[str, Cell], rows: tuple[Row, ...]) -> Grid:
    return Grid(title, tuple(columns), tuple(tuple(cell(row) for cell in columns.values()) for row in rows))


def _difference_header(setting: Setting) -> str:
    return f"vs {setting.baseline}{formatting.difference_unit(setting.metric)}"


def _difference(setting: Setting) -> Cell:
    return _of_contrast(lambda contrast: formatting.estimate(contrast.difference, setting.metric, signed=True))


def _of_contrast(text: Callable[[Contrast], str]) -> Cell:
    return lambda row: text(row.contrast) if row.contrast else formatting.NOTHING


def _mark(row: Row, setting: Setting) -> str:
    is_choice = row.shown and setting.metric.criterion and row.verdict != verdict.BASELINE
    return " *" if is_choice else ""
