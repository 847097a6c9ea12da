"""How lanes end before their time: which have diverged, stopped or were pruned, and when; the others are alive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipbench.engine.telemetry import FRACTION, LOSS, PRE, WEIGHTS


class Fates:
    """What became of each lane. Who has an end keeps it, whatever its tensors go through after that."""

    def __init__(self, lanes: int, limit: float | None) -> None:
        self.diverged_step = np.zeros(lanes, dtype=np.int64)  # from 1; 0: it has not
        self.causes = [""] * lanes  # of divergence
        self.stopped_epoch = np.zeros(lanes, dtype=np.int64)  # at whose end it stopped by its own rule, from 1
        self.pruned_epoch = np.zeros(lanes, dtype=np.int64)  # at whose end it was stopped from outside, from 1
        self._limit = limit  # of the loss
        self.seen = 0  # steps that were looked at

    @property
    def alive(self) -> np.ndarray:
        ended: np.ndarray = (self.diverged_step > 0) | (self.stopped_epoch > 0) | (self.pruned_epoch > 0)
        return ~ended

    def look(self, steps: np.ndarray, places: np.ndarray, refuses: Sequence[bool]) -> None:
        """Take the steps since the last look, [steps, statistics, lanes], of lanes whose places among all are given.

        A lane diverges at its first bad one. What is not finite is not bad where a rule refused the step.
        """
        self.seen += len(steps)
        looked = steps[:, [LOSS, PRE, WEIGHTS]]
        if np.isfinite(looked).all() and (self._limit is None or (looked[:, 0] <= self._limit).all()):
            return  # the usual case, without asking which lane and why
        causes = self._causes(steps, np.array(refuses) & (steps[:, FRACTION] > 0))
        bad = np.logical_or.reduce(list(causes.values()))
        for row in np.flatnonzero(bad.any(0) & self.alive[places]):
            first = int(bad[:, row].argmax())
            self.diverged_step[places[row]] = self.seen - len(steps) + first + 1
            self.causes[places[row]] = next(cause for cause, where in causes.items() if where[first, row])

    def _causes(self, steps: np.ndarray, refused: np.ndarray) -> dict[str, np.ndarray]:
        causes = {
            "loss": ~np.isfinite(steps[:, LOSS]) & ~refused,
            "gradient": ~np.isfinite(steps[:, PRE]) & ~refused,
            "weights": ~np.isfinite(steps[:, WEIGHTS]),
        }
        if self._limit is not None:
            causes[f"loss above {self._limit:g}"] = steps[:, LOSS] > self._limit
        return causes
