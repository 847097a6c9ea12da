"""The metric that is compared, its direction, and the validation metric that chooses thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from clipbench.analysis.arms import FOLD
from clipbench.analysis.report_model import Metric, ReportOptions
from clipbench.core import measures
from clipbench.errors import InputError, did_you_mean
from clipbench.plugins.registry import catalogue

DEFAULTS = ("test/accuracy", "test/mse", "test/loss", "train/loss")


def check(frame: pd.DataFrame, options: ReportOptions) -> None:
    """Raise an error for a metric that no trial has or whose direction is unknown."""
    if options.metric is None or frame.empty:
        return
    known = sorted(_comparable(frame, options.higher))
    if options.metric not in known:
        text = f"no trial has the metric {options.metric!r}."
        remedy = did_you_mean(options.metric, known)
        listed = f"Known: {', '.join(known)}."
        raise InputError.at(options.place, text, remedy if remedy == listed else f"{remedy} {listed}")
    if _higher(options.metric, options.higher) is None:
        text = f"it is not known whether a higher {options.metric!r} is better."
        remedy = "Declare the metric with @metric(higher_is_better=...)."
        raise InputError.at(options.place, text, remedy)


def of_setting(frame: pd.DataFrame, options: ReportOptions) -> Metric:
    """The metric of one setting; the default depends on what was measured."""
    name = options.metric or _first(DEFAULTS, frame) or DEFAULTS[0]
    criterion = _criterion(name, frame)
    higher = bool(_higher(name, options.higher))
    criterion_higher = bool(_higher(criterion, options.higher)) if criterion else True
    return Metric(name, higher, criterion, 1 if criterion_higher else -1)


def grain(frame: pd.DataFrame, name: str, examples: Mapping[str, Mapping[str, int]]) -> float:
    """The smallest step by which the mean of a seed's folds can change; infinite if nothing shows it.

    Of the accuracy it is one example. Of other measures it is the smallest difference between two trials: nearly zero
    where a measure is continuous.
    """
    if not np.isnan(step := example_step(frame, name, examples)):
        return step
    folds = _folds(frame)
    if measures.TYPES.get(name) is int:
        step = 1.0
    else:
        values = pd.to_numeric(frame.get(name, np.nan), errors="coerce")
        finite = [each[np.isfinite(each)] for _, each in pd.Series(values, frame.index).groupby(folds)]
        step = min((np.diff(np.unique(each)).min(initial=np.inf) for each in finite), default=np.inf)
    return float(step / folds.nunique())


def example_step(frame: pd.DataFrame, name: str, examples: Mapping[str, Mapping[str, int]]) -> float:
    """How much one example changes an accuracy, the mean of a seed's folds; NaN for other measures and if unknown."""
    part, _, measure = name.removeprefix("best_").rpartition("/")
    sizes = [examples.get(data, {}).get(part, 0) for data in frame.get("fingerprint", pd.Series(dtype=object)).unique()]
    return 1 / min(sizes) / _folds(frame).nunique() if measure == "accuracy" and sizes and all(sizes) else np.nan


def _folds(frame: pd.DataFrame) -> pd.Series:
    return frame[FOLD].fillna(0) if FOLD in frame else pd.Series(0, frame.index)


def _criterion(name: str, frame: pd.DataFrame) -> str | None:
    """`val/accuracy` for `test/accuracy`; for a metric without data, such as `step_us`, that of the default metric."""
    part, _, measure = name.rpartition("/")
    if part not in measures.PARTS:
        default = _first(DEFAULTS, frame) or ""
        measure = default.rpartition("/")[2]
    return _first((f"val/{measure}",), frame)


def _first(names: Iterable[str], frame: pd.DataFrame) -> str | None:
    return next((name for name in names if name in frame and frame[name].notna().any()), None)


def _higher(name: str, own: Mapping[str, bool]) -> bool | None:
    found, column = measures.higher_is_better(name, own), measures.final(name)
    if found is None and column and column.name.endswith("/*"):
        metric = catalogue("metric").get(name.rpartition("/")[2])  # imports torch, which no report of a plan needs
        return metric.higher_is_better if metric else None
    return found


def _comparable(frame: pd.DataFrame, own: Mapping[str, bool]) -> set[str]:
    """Columns that can be compared: measures of the data and costs; never an option of the trial."""
    numeric = [str(column) for column in frame if pd.api.types.is_numeric_dtype(frame[column])]
    prefixes = tuple(f"{part}/" for part in measures.PARTS)
    known = {name for name, higher in measures.DIRECTIONS.items() if higher is not None} | set(own)
    return {column for column in numeric if column.startswith(prefixes) or column in known}
