"""Whether training has worked at all: beside a constant prediction, on its own data, and at its end."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from clipbench.analysis.report_model import Metric, ReportOptions
from clipbench.stats import Estimate, Floats

NOT_ABOVE_CONSTANT = "no better than a constant"
UNDERFITS = "hardly fits the training data"
STILL_FALLING = "loss still falling"
PERFECT = {"accuracy": 1.0, "balanced_accuracy": 1.0, "f1": 1.0, "r2": 1.0, "mse": 0.0, "mae": 0.0}
LEARNT = 0.1  # the least share of the way from the constant to a perfect training value
SETTLED = 0.05  # the largest share of the loss's fall that took place in the last tenth of training


def constant_value(frame: pd.DataFrame, name: str, options: ReportOptions) -> float:
    """Return a measure of the best constant prediction, the mean over folds; NaN where it is not known."""
    found = [options.constants.get(data, {}).get(name, math.nan) for data in frame.get("fingerprint", ())]
    return float(np.mean(found)) if found else math.nan


def flags(frame: pd.DataFrame, value: Estimate, metric: Metric, options: ReportOptions) -> tuple[str, ...]:
    """Warnings about the training of an arm, whose trials `frame` has, and its value of the metric."""
    found = []
    constant = constant_value(frame, metric.name, options)
    worst = value.low if metric.higher_is_better else value.high
    worst = value.mean if math.isnan(worst) else worst
    if metric.sign * (worst - constant) <= 0:
        found.append(NOT_ABOVE_CONSTANT)
    if _learnt(frame, metric.name.rpartition("/")[2], options) < LEARNT:
        found.append(UNDERFITS)
    if _mean(frame, "train/late_fall") > SETTLED:
        found.append(STILL_FALLING)
    return tuple(found)


def _learnt(frame: pd.DataFrame, measure: str, options: ReportOptions) -> float:
    """The share of the way from a constant to the perfect value on the training data; NaN if that is not known."""
    value, perfect = _mean(frame, f"train/{measure}"), PERFECT.get(measure, math.nan)
    constant = constant_value(frame, f"train/{measure}", options)
    return (value - constant) / (perfect - constant) if perfect != constant else math.nan


def _mean(frame: pd.DataFrame, name: str) -> float:
    values: Floats = pd.to_numeric(frame[name], errors="coerce").to_numpy(float) if name in frame else np.zeros(0)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else math.nan
