"""The words of a page of several experiments: its size, and what its ranks mean."""

from __future__ import annotations

import math

from clipbench.analysis.strategy_ranks import Combined, Ranks
from clipbench.reporting import numbers

UNRANKED = "Average ranks need at least three settings, and three strategies that all of them have."
NO_CLAIMS = "No experiment makes a claim."


def size(combined: Combined) -> str:
    """`3 experiments, 5 settings`."""
    settings = sum(not setting.is_choice for report in combined.reports for setting in report.settings)
    return f"{numbers.count(len(combined.reports), 'experiment')}, {numbers.count(settings, 'setting')}"


def ranks_meaning(ranks: Ranks) -> str:
    """How the ranks are computed, and which of them differ."""
    difference = ranks.ranking.critical_difference
    nemenyi = f" (Nemenyi test, critical difference {difference:.2f})" if math.isfinite(difference) else ""
    return (
        f"Average rank over {ranks.blocks} settings, 1 is best. Friedman test: {numbers.p_clause(ranks.ranking.p)}. "
        f"Strategies with close ranks are not significantly different{nemenyi}."
    )


def about_ranks(combined: Combined) -> str:
    """The text below the ranks, or instead of them."""
    if combined.ranks is None:
        return UNRANKED
    left_out = ", ".join(sorted(combined.ranks.left_out))
    missing = f" Not ranked, because some setting lacks them: {left_out}." if left_out else ""
    return f"{ranks_meaning(combined.ranks)}{missing}"
