"""Several experiments in one: which strategy ranks where over all of their settings, and every claim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clipbench import stats
from clipbench.analysis.report_model import ArmResult, Report, Setting
from clipbench.reporting import numbers
from clipbench.stats import Ranking

UNRANKED = "An average rank takes at least three settings, and three strategies that all of them have."
NO_CLAIMS = "No experiment claims anything."
FEWEST = 3  # settings, and strategies: with fewer an average rank says nothing


@dataclass(frozen=True)
class Block:
    """A setting of an experiment."""

    experiment: str
    setting: Setting


@dataclass(frozen=True)
class Ranks:
    """The strategies that every setting has, ranked over the settings."""

    strategies: tuple[str, ...]  # from the best to the worst
    ranking: Ranking
    blocks: int
    left_out: tuple[str, ...]  # strategies that some setting lacks

    @property
    def meaning(self) -> str:
        difference = self.ranking.critical_difference
        nemenyi = f" (Nemenyi, critical difference {difference:.2f})" if math.isfinite(difference) else ""
        return (
            f"Average rank over {self.blocks} settings, 1 is best. Friedman {numbers.p_clause(self.ranking.p)}. "
            f"Strategies whose ranks are close are not told apart{nemenyi}."
        )


@dataclass(frozen=True)
class Combined:
    """What a page of several experiments shows."""

    reports: tuple[Report, ...]
    ranks: Ranks | None

    @property
    def size(self) -> str:
        settings = sum(not setting.is_choice for report in self.reports for setting in report.settings)
        return f"{numbers.count(len(self.reports), 'experiment')}, {numbers.count(settings, 'setting')}"

    @property
    def about_ranks(self) -> str:
        """What must be said beside the ranks, or instead of them."""
        if self.ranks is None:
            return UNRANKED
        left_out = ", ".join(sorted(self.ranks.left_out))
        missing = f" Not in every setting, and so not ranked: {left_out}." if left_out else ""
        return f"{self.ranks.meaning}{missing}"


def combine(reports: Sequence[Report]) -> Combined:
    blocks = [Block(report.name, setting) for report in reports for setting in _ranked(report)]
    return Combined(tuple(reports), _ranks(blocks))


def _ranked(report: Report) -> Sequence[Setting]:
    """Where strategies were tuned, the settings that they were tuned over are no comparisons of their own."""
    return [setting for setting in report.settings if setting.tuned] or report.settings


def _ranks(blocks: Sequence[Block]) -> Ranks | None:
    """None where there are too few settings or too few strategies that all of them have."""
    tables = [_scores(block.setting) for block in blocks]
    every = list(dict.fromkeys(name for table in tables for name in table))
    common = [name for name in every if all(name in table for table in tables)]
    if len(blocks) < FEWEST or len(common) < FEWEST:
        return None
    found = stats.ranking([[table[name] for name in common] for table in tables])
    order = sorted(range(len(common)), key=lambda at: found.means[at])
    ranked = Ranking(tuple(found.means[at] for at in order), found.p, found.critical_difference)
    return Ranks(tuple(common[at] for at in order), ranked, len(blocks), tuple(set(every) - set(common)))


def _scores(setting: Setting) -> dict[str, float]:
    """A number for each strategy that orders them: fewer divergences first, then the better mean."""
    rows = _best_rows(setting)
    order = sorted(rows, key=lambda row: (-_diverged(row), _value(setting, row)))
    places: dict[tuple[float, float], float] = {}
    for row in order:
        places.setdefault((_diverged(row), _value(setting, row)), float(len(places)))
    return {row.strategy: places[_diverged(row), _value(setting, row)] for row in rows}


def _best_rows(setting: Setting) -> Iterable[ArmResult]:
    """One row a strategy: the chosen one; where nothing was chosen, strategies with one threshold only."""
    shown = [row for row in setting.rows if row.shown]
    names = [row.strategy for row in shown]
    return [row for row in shown if names.count(row.strategy) == 1]


def _diverged(row: ArmResult) -> float:
    return row.diverged / max(row.trials, 1)


def _value(setting: Setting, row: ArmResult) -> float:
    """Rounded: means of the same values in another order differ in their last digits and still tie."""
    mean = setting.metric.sign * row.value.mean
    return -math.inf if math.isnan(mean) else float(f"{mean:.12g}")
