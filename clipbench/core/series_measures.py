"""Measures that summarize a series over the steps of a trial; values that are not finite are left out."""

from __future__ import annotations

import math

import numpy as np


def mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def quantile(values: np.ndarray, q: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, q)) if len(finite) else math.nan


def tail(losses: np.ndarray) -> dict[str, float]:
    """Return the mean, median and 99th percentile of the loss over the second half of the steps, and its late fall."""
    late, losses = late_fall(losses), losses[len(losses) // 2 :]
    return {
        "train/late_fall": late,
        "train/loss_tail": float(losses.mean()),
        "train/loss_tail_p50": quantile(losses, 0.5),
        "train/loss_tail_p99": quantile(losses, 0.99),
    }


def late_fall(losses: np.ndarray) -> float:
    """Return the share of the fall between the first and the last tenth of the steps that took place in the last."""
    tenth = len(losses) // 10
    if tenth < 2:
        return math.nan
    first, before, last = (
        float(part.mean()) for part in (losses[:tenth], losses[-2 * tenth : -tenth], losses[-tenth:])
    )
    return (before - last) / (first - last) if first > last else math.nan
