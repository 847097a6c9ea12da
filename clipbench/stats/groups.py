"""Comparisons of two arms as groups of trials: numbers that diverged, and times to a target."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def fisher_p(hits: int, trials: int, other_hits: int, other_trials: int) -> float:
    """Two-sided p of Fisher's exact test that both shares are equal."""
    if not hits and not other_hits:
        return 1.0  # the usual case, without the import
    from scipy.stats import fisher_exact

    return float(fisher_exact([[hits, trials - hits], [other_hits, other_trials - other_hits]]).pvalue)


def restricted_mean(times: ArrayLike, horizon: float) -> float:
    """The mean time to an event; a trial without the event (NaN) counts with the whole horizon."""
    values = np.asarray(times, float)
    return float(np.minimum(np.where(np.isnan(values), horizon, values), horizon).mean())


def log_rank_p(times: ArrayLike, other_times: ArrayLike, horizon: float) -> float:
    """Two-sided p of the log-rank test that both rates are equal; NaN means no event until the horizon."""
    from scipy.stats import CensoredData, logrank

    groups = [np.asarray(each, float) for each in (times, other_times)]
    reached = [group[group <= horizon] for group in groups]
    if not all(group.size for group in groups) or not any(known.size for known in reached):
        return 1.0
    censored = [
        CensoredData(uncensored=known, right=np.full(group.size - known.size, horizon))
        for group, known in zip(groups, reached, strict=True)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):  # without variance p is NaN
        p = float(logrank(*censored).pvalue)
    return 1.0 if np.isnan(p) else p
