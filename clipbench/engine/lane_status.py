"""The status of lanes: which have diverged, stopped early or were pruned, and when; the others are alive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipbench.engine.telemetry import FRACTION, LOSS, PRE, WEIGHTS


class LaneStatus:
    """How and when each lane ended. A lane keeps its first end, whatever happens to its tensors later."""

    def __init__(self, lanes: int, limit: float | None) -> None:
        self.diverged_step = np.zeros(lanes, dtype=np.int64)  # from 1; 0: it has not diverged
        self.causes = [""] * lanes  # of divergence
        self.stopped_epoch = np.zeros(lanes, dtype=np.int64)  # the epoch, from 1, after which it stopped early
        self.pruned_epoch = np.zeros(lanes, dtype=np.int64)  # the epoch, from 1, after which it was pruned
        self._limit = limit  # of the loss
        self.checked_steps = 0

    @property
    def alive(self) -> np.ndarray:
        ended: np.ndarray = (self.diverged_step > 0) | (self.stopped_epoch > 0) | (self.pruned_epoch > 0)
        return ~ended

    def check_divergence(self, steps: np.ndarray, positions: np.ndarray, refuses: Sequence[bool]) -> None:
        """Check the steps since the last check, [steps, statistics, lanes], of the lanes at `positions` among all.

        A lane diverges at its first bad step. Values that are not finite do not count where a rule refused the step.
        """
        self.checked_steps += len(steps)
        checked = steps[:, [LOSS, PRE, WEIGHTS]]
        if np.isfinite(checked).all() and (self._limit is None or (checked[:, 0] <= self._limit).all()):
            return  # the usual case needs no search for the lane and the cause
        causes = self._causes(steps, np.array(refuses) & (steps[:, FRACTION] > 0))
        bad = np.logical_or.reduce(list(causes.values()))
        for row in np.flatnonzero(bad.any(0) & self.alive[positions]):
            first = int(bad[:, row].argmax())
            self.diverged_step[positions[row]] = self.checked_steps - len(steps) + first + 1
            self.causes[positions[row]] = next(cause for cause, where in causes.items() if where[first, row])

    def _causes(self, steps: np.ndarray, refused: np.ndarray) -> dict[str, np.ndarray]:
        causes = {
            "loss": ~np.isfinite(steps[:, LOSS]) & ~refused,
            "gradient": ~np.isfinite(steps[:, PRE]) & ~refused,
            "weights": ~np.isfinite(steps[:, WEIGHTS]),
        }
        if self._limit is not None:
            causes[f"loss above {self._limit:g}"] = steps[:, LOSS] > self._limit
        return causes
