"""What a point came to: the mean of its trials' scores, finite whatever happened to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from clipbench.store.sweep_file import SearchObjective

Row = Mapping[str, Any]  # a trial's record
# What a score is where nothing was learned: shares, correlations and their like begin at 0.
NOTHING_LEARNED = 0.0
# Beyond, all scores are alike: their squares must stay numbers.
LARGEST = 1e30


@dataclass(frozen=True)
class PointScore:
    """A point's scores, one for each objective."""

    scores: tuple[float, ...]
    deviations: tuple[float, ...]  # of its trials around their mean
    lanes: int
    diverged: int
    epochs: int
    worst: tuple[float, ...]  # what a trial that diverges later may be held to
    pruned: bool = False
    failed: bool = False

    @property
    def diverged_share(self) -> float:
        """At most 0 where the point is good to use."""
        return self.diverged / self.lanes if self.lanes else 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> PointScore:
        known: dict[str, Any] = {each.name: values[each.name] for each in fields(cls)}
        return cls(**known | {name: tuple(known[name]) for name in ("scores", "deviations", "worst")})


def outcome(
    rows: Sequence[Row], objectives: Sequence[SearchObjective], worst: Sequence[float], initial_loss: float = math.nan
) -> PointScore:
    """What a point's trials come to. `worst` is the worst score of the study so far, for each objective.

    A diverged trial counts as the worst of these, of the point's own trials and of what knowing nothing gives; so a
    study's numbers stay finite, and no point is better for having diverged.
    """
    diverged = np.array([row["status"] == "diverged" for row in rows])
    columns = [_scores(rows, each) for each in objectives]
    floors = [
        _floor(each, column[~diverged], before, initial_loss)
        for each, column, before in zip(objectives, columns, worst, strict=True)
    ]
    filled = [
        np.where(diverged | ~np.isfinite(column), floor, column) for column, floor in zip(columns, floors, strict=True)
    ]
    known = [
        worst_of(each, [before, *column[np.isfinite(column) & ~diverged]])
        for each, column, before in zip(objectives, columns, worst, strict=True)
    ]
    return PointScore(
        scores=tuple(float(column.mean()) for column in filled),
        deviations=tuple(float(column.std(ddof=1)) if len(column) > 1 else 0.0 for column in filled),
        lanes=len(rows),
        diverged=int(diverged.sum()),
        epochs=int(max((row.get("epochs") or 0 for row in rows), default=0)),
        worst=tuple(known),
        pruned=any(row["status"] == "pruned" for row in rows),
        failed=any(row["status"] == "failed" for row in rows),
    )


def running_score(values: Iterable[float], objective: SearchObjective, worst: float, initial_loss: float) -> float:
    """The same at the end of an epoch: what is not finite has diverged."""
    found = _bounded(values)
    known = found[np.isfinite(found)]
    return float(np.where(np.isfinite(found), found, _floor(objective, known, worst, initial_loss)).mean())


def _scores(rows: Sequence[Row], objective: SearchObjective) -> np.ndarray:
    """A trial that never reached its target took all its epochs without."""
    values = [row.get(objective.name) for row in rows]
    if objective.name == "epochs_to_target":
        values = [row.get("epochs") if value is None else value for row, value in zip(rows, values, strict=True)]
    return _bounded([math.nan if value is None else value for value in values])


def _bounded(values: Iterable[float]) -> np.ndarray:
    found = np.array(list(values), float)
    return np.where(np.isfinite(found), np.clip(found, -LARGEST, LARGEST), found)


def _floor(objective: SearchObjective, known: np.ndarray, worst: float, initial_loss: float) -> float:
    """No better than anything that was seen, nor than a model that was never trained."""
    untrained = NOTHING_LEARNED if objective.higher else initial_loss
    return worst_of(objective, [untrained, worst, *known], otherwise=NOTHING_LEARNED)


def worst_of(objective: SearchObjective, values: Sequence[float], otherwise: float = math.nan) -> float:
    finite = _bounded(value for value in values if math.isfinite(value))
    if not finite.size:
        return otherwise
    return float(finite.min() if objective.higher else finite.max())
