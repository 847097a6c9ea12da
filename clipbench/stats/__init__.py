"""Statistics of paired seeds, as pure functions on arrays."""

from clipbench.stats.groups import fisher_p, log_rank_p, restricted_mean
from clipbench.stats.intervals import LEVEL, Estimate, Floats, bootstrap, estimate, nested, standard_error_of
from clipbench.stats.paired import (
    DRAWS,
    WinTieLoss,
    cohen_dz,
    equivalence_p,
    few_steps_p,
    rank_biserial,
    sign_flip_p,
    sign_flip_p_after_choice,
    smallest_dz,
    wilcoxon_p,
    wins_ties_losses,
    worst_rank,
)
from clipbench.stats.power import MOST_SEEDS, holm, more_seeds, seeds_for_power, seeds_needed, smallest_p
from clipbench.stats.ranks import Ranking, critical_difference, ranking

__all__ = [
    "DRAWS",
    "LEVEL",
    "MOST_SEEDS",
    "Estimate",
    "Floats",
    "Ranking",
    "WinTieLoss",
    "bootstrap",
    "cohen_dz",
    "critical_difference",
    "equivalence_p",
    "estimate",
    "few_steps_p",
    "fisher_p",
    "holm",
    "log_rank_p",
    "more_seeds",
    "nested",
    "rank_biserial",
    "ranking",
    "restricted_mean",
    "seeds_for_power",
    "seeds_needed",
    "sign_flip_p",
    "sign_flip_p_after_choice",
    "smallest_dz",
    "smallest_p",
    "standard_error_of",
    "wilcoxon_p",
    "wins_ties_losses",
    "worst_rank",
]
