"""The plateau of a strategy: the thresholds within one standard error of the best one."""

from __future__ import annotations

import math

from clipbench import stats
from clipbench.analysis.report_model import ArmResult, Setting


def thresholds(setting: Setting, strategy: str) -> tuple[ArmResult, ...]:
    """The rows of a strategy with a threshold, sorted by it."""
    rows = [row for row in setting.rows if row.strategy == strategy and row.threshold is not None]
    return tuple(sorted(rows, key=lambda row: row.threshold or 0.0))


def plateau(setting: Setting, strategy: str) -> tuple[ArmResult, ...]:
    """The best threshold and its neighbours whose mean is within one standard error of the best mean.

    The plateau ends at a threshold that diverged more often than the best one.
    """
    rows = thresholds(setting, strategy)
    best = _best(setting, rows)
    if best is None or len(rows) < 2:
        return ()
    error = stats.standard_error_of(best.value)

    def is_level(row: ArmResult) -> bool:
        lost = setting.metric.sign * (best.value.mean - row.value.mean)
        return row.diverged <= best.diverged and lost <= error

    first = last = rows.index(best)
    while first > 0 and is_level(rows[first - 1]):
        first -= 1
    while last < len(rows) - 1 and is_level(rows[last + 1]):
        last += 1
    return rows[first : last + 1]


def _best(setting: Setting, rows: tuple[ArmResult, ...]) -> ArmResult | None:
    """The chosen threshold; if none was chosen, that with the best mean."""
    finite = [row for row in rows if math.isfinite(row.value.mean)]
    chosen = [row for row in finite if row.shown] if setting.metric.criterion else finite
    fewest = min((row.diverged for row in chosen), default=0)
    steady = [row for row in chosen if row.diverged == fewest]
    return max(steady, key=lambda row: setting.metric.sign * row.value.mean, default=None)
