"""The score of a point: the mean of its trials' scores, finite even if trials diverged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from clipbench.store.sweep_file import SearchObjective

Row = Mapping[str, Any]  # a trial's record
Epochs = Mapping[str, np.ndarray]  # a trial's table of epochs, by column
UNTRAINED = 0.0  # score of an untrained model, for accuracies, correlations and other measures to maximize
LARGEST = 1e30  # scores are clipped to this, so that their squares are finite


@dataclass(frozen=True)
class PointResult:
    """The scores of a point, one for each objective, and how its trials ended."""

    scores: tuple[float, ...]
    deviations: tuple[float, ...]  # standard deviation of its trials
    lanes: int
    diverged: int
    epochs: int
    worst: tuple[float, ...]  # worst score of a trial so far, the penalty of trials that diverge later
    pruned: bool = False
    failed: bool = False

    @property
    def diverged_share(self) -> float:
        """The constraint of Optuna: 0 if no trial diverged."""
        return self.diverged / self.lanes if self.lanes else 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PointResult:
        known: dict[str, Any] = {each.name: values[each.name] for each in fields(cls)}
        return cls(**known | {name: tuple(known[name]) for name in ("scores", "deviations", "worst")})


def point_result(
    rows: Sequence[Row], objectives: Sequence[SearchObjective], worst: Sequence[float], initial_loss: float = math.nan
) -> PointResult:
    """Return the result of a point from the records of its trials.

    A diverged trial gets the worst of three scores: of the study so far (`worst`, one for each objective), of the
    point's other trials, and of an untrained model. So scores stay finite, and divergence never improves a point.
    """
    diverged = np.array([row["status"] == "diverged" for row in rows])
    columns = [np.where(diverged, math.nan, _scores(rows, each)) for each in objectives]
    filled = [
        _filled(column, objective, before, initial_loss)
        for column, objective, before in zip(columns, objectives, worst, strict=True)
    ]
    return PointResult(
        scores=tuple(float(column.mean()) for column in filled),
        deviations=tuple(float(column.std(ddof=1)) if len(column) > 1 else 0.0 for column in filled),
        lanes=len(rows),
        diverged=int(diverged.sum()),
        epochs=int(max((row.get("epochs") or 0 for row in rows), default=0)),
        worst=tuple(
            worst_of(objective, [before, *column])
            for column, objective, before in zip(columns, objectives, worst, strict=True)
        ),
        pruned=any(row["status"] == "pruned" for row in rows),
        failed=any(row["status"] == "failed" for row in rows),
    )


def running_score(values: Iterable[float], objective: SearchObjective, worst: float) -> float:
    """Return the score of a point at the end of an epoch, where values that are not finite have diverged."""
    return float(_filled(_bounded(values), objective, worst, math.nan).mean())


def curve(rows: Sequence[Row], epochs: Sequence[Epochs], objective: SearchObjective, worst: float) -> dict[int, float]:
    """Return the score of a point at the end of each epoch that measures it, from the tables of its trials."""
    measured = [dict(zip(table.get("epoch", ()), table.get(objective.name, ()), strict=False)) for table in epochs]
    scores = {}
    for epoch in sorted(set().union(*measured)):
        values = [_at(epoch, each, row["status"]) for each, row in zip(measured, rows, strict=True)]
        if not np.isnan(values).all():
            scores[int(epoch)] = running_score(values, objective, worst)
    return scores


def _at(epoch: int, measured: Mapping[int, float], status: str) -> float:
    """Return the measure of a trial at an epoch. One that stopped early keeps its last."""
    if epoch in measured or status == "diverged" or not measured:
        return measured.get(epoch, math.nan)
    return measured[max(measured)]


def _scores(rows: Sequence[Row], objective: SearchObjective) -> np.ndarray:
    """Return the score of each trial. One that never reached its target counts with one epoch more than it had."""
    values = [row.get(objective.name) for row in rows]
    if objective.name == "epochs_to_target":
        values = [
            (row.get("epochs") or 0) + 1 if value is None else value for row, value in zip(rows, values, strict=True)
        ]
    return _bounded([math.nan if value is None else value for value in values])


def _bounded(values: Iterable[float]) -> np.ndarray:
    found = np.array(list(values), float)
    return np.where(np.isfinite(found), np.clip(found, -LARGEST, LARGEST), found)


def _filled(scores: np.ndarray, objective: SearchObjective, worst: float, initial_loss: float) -> np.ndarray:
    """Give trials without a finite score the worst of the other scores and that of an untrained model."""
    untrained = UNTRAINED if objective.higher else initial_loss
    penalty = worst_of(objective, [untrained, worst, *scores], otherwise=UNTRAINED)
    return np.where(np.isfinite(scores), scores, penalty)


def worst_of(objective: SearchObjective, values: Sequence[float], otherwise: float = math.nan) -> float:
    finite = _bounded(value for value in values if math.isfinite(value))
    if not finite.size:
        return otherwise
    return float(finite.min() if objective.higher else finite.max())
