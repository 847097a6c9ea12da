"""How wide the choice of a threshold is: the thresholds within one standard error of the best one."""

from __future__ import annotations

import math

from clipbench import stats
from clipbench.analysis.report_model import ArmResult, Setting


def thresholds(setting: Setting, strategy: str) -> tuple[ArmResult, ...]:
    """The rows of a strategy that have a threshold, in its order."""
    rows = [row for row in setting.rows if row.strategy == strategy and row.threshold is not None]
    return tuple(sorted(rows, key=lambda row: row.threshold or 0.0))


def plateau(setting: Setting, strategy: str) -> tuple[ArmResult, ...]:
    """The neighbours of the best threshold whose mean is within one standard error of its mean, with itself.

    A threshold that diverged more often than the best one ends the plateau.
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
    """The chosen one; where nothing was chosen, the one with the best mean."""
    finite = [row for row in rows if math.isfinite(row.value.mean)]
    chosen = [row for row in finite if row.shown] if setting.metric.criterion else finite
    fewest = min((row.diverged for row in chosen), default=0)
    steady = [row for row in chosen if row.diverged == fewest]
    return max(steady, key=lambda row: setting.metric.sign * row.value.mean, default=None)
