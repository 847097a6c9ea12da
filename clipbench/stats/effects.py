"""How large an effect is, whatever its unit, and who won how often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from clipbench.stats.numbers import finite, nonzero, standard_error
from clipbench.stats.paired import average_ranks


@dataclass(frozen=True)
class WinTieLoss:
    """How many pairs were won, tied and lost."""

    wins: int
    ties: int
    losses: int


def cohen_dz(differences: ArrayLike) -> float:
    """Mean difference over the standard deviation of the differences; infinite where all are equal."""
    known = finite(differences)
    if known.size < 2:
        return float("nan")
    mean, error = float(known.mean()), standard_error(known)
    if error == 0:
        return float(np.copysign(np.inf, mean)) if mean else 0.0
    return mean / (error * float(np.sqrt(known.size)))


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation: (ranks won - ranks lost) / all ranks; ties left out."""
    known = nonzero(differences)
    if not known.size:
        return 0.0
    ranks = average_ranks(np.abs(known))
    return float((ranks * np.sign(known)).sum() / ranks.sum())


def score(differences: ArrayLike) -> WinTieLoss:
    """Wins, ties and losses of the pairs, where positive is better."""
    signs = np.sign(finite(differences))
    return WinTieLoss(*(int((signs == side).sum()) for side in (1, 0, -1)))
