"""The arms of a report, and the points of a search, as CSV in full precision, for programs."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from clipbench.analysis.report_model import NOTHING, ArmResult, Contrast, Report, Setting, TargetEpochs
from clipbench.errors import without_control
from clipbench.stats import Estimate, WinTieLoss
from clipbench.store.sweep_file import SearchedContender, SearchedPoint, SweepDocument

# Signs that begin a formula, of full width too.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def render(report: Report) -> str:
    """Write a row for each strategy and threshold of each setting.

    A missing number is empty, and integers stay integers in a column with missing values.
    """
    rows = [as_dict(row, setting) for setting in report.settings for row in setting.rows]
    return _csv(pd.DataFrame(rows, dtype=object))


def as_dict(row: ArmResult, setting: Setting) -> dict[str, Any]:
    """An arm of a setting by the headers of the table."""
    return {
        "setting": setting.words,
        **setting.axes,
        "arm": row.arm,
        "strategy": row.strategy,
        "threshold": row.threshold,
        "metric": setting.metric.name,
        **_estimate("", row.value),
        "criterion": setting.metric.criterion,
        "criterion_mean": row.criterion,
        "baseline": setting.baseline,
        **_contrast(row.contrast),
        "diverged": row.diverged,
        "trials": row.trials,
        **_reach(row.reach),
        "clip/fired_share": row.fired_share,
        "clip/fraction": row.fraction,
        "grad_norm/pre_p50": row.grad_norm,
        "step_us": row.step_us,
        "shown": row.shown,
        "verdict": row.verdict,
        "flags": "; ".join(row.flags),
    }


def _estimate(prefix: str, value: Estimate) -> dict[str, Any]:
    return {f"{prefix}{name}": getattr(value, name) for name in ("mean", "low", "high", "n")}


def _contrast(contrast: Contrast | None) -> dict[str, Any]:
    contrast = contrast or Contrast(NOTHING, math.nan, math.nan, WinTieLoss(0, 0, 0), 0)
    return {
        **_estimate("difference_", contrast.difference),
        "p": contrast.p,
        "p_choice": contrast.p_choice,
        "p_holm": contrast.p_holm,
        "p_overall": contrast.p_overall,
        "dz": contrast.dz,
        "rank_biserial": contrast.rank_biserial,
        **vars(contrast.score),
        "pairs": contrast.pairs,
        "bootstrap_low": contrast.bootstrap.low,
        "bootstrap_high": contrast.bootstrap.high,
        "p_wilcoxon": contrast.p_wilcoxon,
        "p_diverged_fisher": contrast.p_diverged,
        "p_reach_log_rank": contrast.p_reach,
        "difference_nested": contrast.nested,
        "seeds_needed": contrast.seeds_needed,
        "seeds_needed_low": contrast.seeds_needed_low,
    }


def _reach(reach: TargetEpochs | None) -> dict[str, Any]:
    if reach is None:
        return {}
    return {
        "epochs_to_target_median": reach.median,
        "epochs_to_target_restricted_mean": reach.restricted,
        "epochs_to_target_reached": reach.reached,
    }


def render_points(swept: SweepDocument) -> str:
    """Write the points as CSV; a missing number is empty."""
    return _csv(points(swept))


def _csv(frame: pd.DataFrame) -> str:
    """Write a table in which no text, headers included, is taken for a formula by a spreadsheet."""
    return frame.map(_no_formula).rename(columns=_no_formula).to_csv(index=False, lineterminator="\n")


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return f"'{without_control(value)}" if value.startswith(FORMULA) else without_control(value)


def points(swept: SweepDocument) -> pd.DataFrame:
    """Return one row for each point: its options, its scores and its state."""
    scored = [name for each in swept.objectives for name in (each.name, f"{each.name} deviation")]
    headers = ["contender", "setting", "point", "origin", "state", *swept.paths, *scored]
    headers += ["diverged", "lanes", "epochs", "winner", "ids"]
    rows = [_row(swept, contender, point) for contender in swept.contenders for point in contender.points]
    return pd.DataFrame(rows, columns=headers, dtype=object)


def _row(swept: SweepDocument, contender: SearchedContender, point: SearchedPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"contender": contender.name, "setting": contender.setting, "point": point.number}
    row |= {"origin": point.origin, "state": point.state}
    row |= {path: point.values[path] for path in swept.paths if path in point.values}
    for number, objective in enumerate(swept.objectives):
        row |= {objective.name: point.score(number), f"{objective.name} deviation": point.deviation(number)}
    row |= {"diverged": point.diverged, "lanes": point.lanes, "epochs": point.epochs}
    return row | {"winner": point.number == contender.winner, "ids": " ".join(point.ids)}
