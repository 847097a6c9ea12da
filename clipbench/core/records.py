"""Records: what happened to trials, as three flat tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clipbench.core.trial import Trial

# How much a row counts beside others of its trial, by status. A row of a whole training needs no other.
RANKS = {"failed": 0, "pruned": 1}
WHOLE = 2

Columns = dict[str, np.ndarray]


@dataclass
class Records:
    """Trials and what happened to them, as three flat tables of equally long columns.

    `records` has one row a trial, `epochs` one a trial and epoch, `steps` one a trial and step.
    """

    records: Columns
    epochs: Columns
    steps: Columns
    weights: dict[str, np.ndarray] = field(default_factory=dict)  # final weights, flat, by trial id, if requested

    @classmethod
    def failed(cls, trials: Sequence[Trial], error: str) -> Records:
        """Records of trials that could not be trained; the next run tries them again."""
        rows = [{"id": trial.id, "status": "failed", **trial.columns(), "error": error} for trial in trials]
        return cls(as_columns(rows), {}, {})


def rank(status: str) -> int:
    return RANKS.get(status, WHOLE)


def as_columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Turn rows, which may have different keys, into columns of equal length."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name) for row in rows], dtype=object) for name in names}
