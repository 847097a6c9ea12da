"""The status of lanes: which have diverged, stopped early or were pruned, and when; the others are alive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipbench.engine.step import FRACTION, LOSS, PRE, WEIGHTS


class LaneStatus:
    """How and when each lane ended. A lane keeps its first end, whatever happens to its tensors later."""

    def __init__(self, lanes: int, limit: float | None) -> None:
        self.diverged_step = np.zeros(lanes, dtype=np.int64)  # from 1; 0: it has not diverged
        self._causes_known = ("", "loss", "gradient", "weights", f"loss above {limit:g}" if limit is not None else "")
        self.cause = np.zeros(lanes, dtype=np.int64)  # of divergence: a place in that list
        self.stopped_epoch = np.zeros(lanes, dtype=np.int64)  # the epoch, from 1, after which it stopped early
        self.pruned_epoch = np.zeros(lanes, dtype=np.int64)  # the epoch, from 1, after which it was pruned
        self._limit = limit  # of the loss
        self.checked = np.zeros(1, dtype=np.int64)  # steps

    @property
    def causes(self) -> list[str]:
        """The cause of each lane's divergence; empty if it has not diverged."""
        return [self._causes_known[cause] for cause in self.cause]

    @property
    def alive(self) -> np.ndarray:
        ended: np.ndarray = (self.diverged_step > 0) | (self.stopped_epoch > 0) | (self.pruned_epoch > 0)
        return ~ended

    def check_divergence(self, steps: np.ndarray, refuses: Sequence[bool], errors: Sequence[bool]) -> None:
        """Check the steps since the last check, [steps, statistics, lanes].

        A lane diverges at its first bad step. Values that are not finite do not count where a rule refused the step,
        except for the gradient of lanes in which this is an error.
        """
        self.checked += len(steps)
        checked = steps[:, [LOSS, PRE, WEIGHTS]]
        if np.isfinite(checked).all() and (self._limit is None or (checked[:, 0] <= self._limit).all()):
            return  # the usual case needs no search for the lane and the cause
        causes = self._causes(steps, np.array(refuses) & (steps[:, FRACTION] > 0), np.array(errors))
        bad = np.logical_or.reduce(list(causes.values()))
        for lane in np.flatnonzero(bad.any(0) & self.alive):
            first = int(bad[:, lane].argmax())
            self.diverged_step[lane] = int(self.checked[0]) - len(steps) + first + 1
            cause = next(cause for cause, where in causes.items() if where[first, lane])
            self.cause[lane] = self._causes_known.index(cause)

    def _causes(self, steps: np.ndarray, refused: np.ndarray, errors: np.ndarray) -> dict[str, np.ndarray]:
        causes = {
            "loss": ~np.isfinite(steps[:, LOSS]) & ~refused,
            "gradient": ~np.isfinite(steps[:, PRE]) & (~refused | errors),
            "weights": ~np.isfinite(steps[:, WEIGHTS]),
        }
        if self._limit is not None:
            causes[f"loss above {self._limit:g}"] = steps[:, LOSS] > self._limit
        return causes
