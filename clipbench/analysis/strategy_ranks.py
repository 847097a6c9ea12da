"""Several experiments together: how the strategies rank over all of their settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from clipbench import stats
from clipbench.analysis.contrasts import with_overall_p
from clipbench.analysis.report_model import ArmResult, Report, Setting
from clipbench.stats import Ranking

FEWEST = 3  # settings, and strategies: with fewer an average rank means nothing


@dataclass(frozen=True)
class Ranks:
    """The strategies that every setting has, ranked over the settings."""

    strategies: tuple[str, ...]  # from the best to the worst
    ranking: Ranking
    blocks: int  # settings
    left_out: tuple[str, ...]  # strategies that some setting lacks

    def not_significantly_different_from(self, strategy: str) -> list[str]:
        """The strategies that are not significantly different from this one."""
        means = dict(zip(self.strategies, self.ranking.means, strict=True))
        reach = self.ranking.critical_difference
        return [name for name in means if name != strategy and abs(means[name] - means[strategy]) < reach]


@dataclass(frozen=True)
class Combined:
    """The reports of several experiments, and the ranks over all of their settings."""

    reports: tuple[Report, ...]
    ranks: Ranks | None  # None if there are too few settings or strategies
    settings: tuple[Setting, ...] = ()  # of all reports, with p corrected for all of them


def combine(reports: Sequence[Report]) -> Combined:
    """Rank the strategies over the settings of all reports."""
    ranks = _ranks([setting for report in reports for setting in _ranked(report)])
    return Combined(tuple(reports), ranks, with_overall_p([each for report in reports for each in report.settings]))


def _ranked(report: Report) -> Sequence[Setting]:
    """The settings to rank: if strategies were tuned, not those among which they were tuned."""
    return [setting for setting in report.settings if setting.tuned] or report.settings


def _ranks(settings: Sequence[Setting]) -> Ranks | None:
    scores = pd.DataFrame([_scores(setting) for setting in settings])
    common = scores.dropna(axis="columns")
    if len(settings) < FEWEST or len(common.columns) < FEWEST:
        return None
    found = stats.ranking(common)
    means = pd.Series(found.means, common.columns).sort_values(kind="stable")
    left_out = tuple(str(name) for name in scores if name not in common)
    return Ranks(tuple(means.index), replace(found, means=tuple(means.tolist())), len(settings), left_out)


def _scores(setting: Setting) -> dict[str, float]:
    """A score for each strategy, higher is better: fewer divergences first, then the better mean."""
    keys = {row.strategy: (-row.diverged / max(row.trials, 1), _value(setting, row)) for row in _best_rows(setting)}
    order = sorted(set(keys.values()))
    return {strategy: float(order.index(key)) for strategy, key in keys.items()}


def _best_rows(setting: Setting) -> Iterable[ArmResult]:
    """The chosen arm of each strategy; if nothing was chosen, only strategies with one threshold."""
    shown = [row for row in setting.rows if row.shown]
    names = [row.strategy for row in shown]
    return [row for row in shown if names.count(row.strategy) == 1]


def _value(setting: Setting, row: ArmResult) -> float:
    """The mean, rounded because means of the same values in another order differ in their last digits."""
    mean = setting.metric.sign * row.value.mean
    return -math.inf if math.isnan(mean) else float(f"{mean:.12g}")
