"""Counts and times: how many diverged, and when a target was reached by those that did."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from clipbench.stats.numbers import Floats


def fisher_p(hits: int, trials: int, other_hits: int, other_trials: int) -> float:
    """Two-sided p of Fisher's exact test that two shares are one: all tables no more likely than this one."""
    total = hits + other_hits
    possible = np.arange(max(0, total - other_trials), min(trials, total) + 1)
    logs = _log_choose(trials, possible) + _log_choose(other_trials, total - possible)
    chances = np.exp(logs - _log_choose(trials + other_trials, np.array([total])))
    observed = chances[possible == hits]
    if not observed.size:
        raise ValueError(f"{hits} of {trials} and {other_hits} of {other_trials} are no counts")
    return float(min(1.0, chances[chances <= observed[0] * (1 + 1e-7)].sum()))


def restricted_mean(times: ArrayLike, horizon: float) -> float:
    """The mean time until it happened, where a trial in which it did not (NaN) counts with the whole horizon."""
    values = np.asarray(times, float)
    return float(np.minimum(np.where(np.isnan(values), horizon, values), horizon).mean())


def log_rank_p(times: ArrayLike, other_times: ArrayLike, horizon: float) -> float:
    """Two-sided p of the log-rank test that both happen at one rate; NaN is a trial that was watched to the horizon."""
    mine, other = np.asarray(times, float), np.asarray(other_times, float)
    excess, variance = 0.0, 0.0
    for moment in np.unique(np.concatenate([mine, other])[_happened(mine, other, horizon)]):
        at_risk, others = _still(mine, moment), _still(other, moment)
        events = int((mine == moment).sum() + (other == moment).sum())
        both = at_risk + others
        excess += int((mine == moment).sum()) - events * at_risk / both
        if both > 1:
            variance += events * (both - events) * at_risk * others / (both**2 * (both - 1))
    return float(special.chdtrc(1, excess**2 / variance)) if variance else 1.0


def _happened(mine: Floats, other: Floats, horizon: float) -> Floats:
    every = np.concatenate([mine, other])
    happened: Floats = np.isfinite(every) & (every <= horizon)
    return happened


def _still(times: Floats, moment: float) -> int:
    return int((np.isnan(times) | (times >= moment)).sum())


def _log_choose(n: int, k: ArrayLike) -> Floats:
    k = np.asarray(k, float)
    logs: Floats = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return logs
