"""Pruning: the measures of a chunk's trials are passed on at the end of an epoch, and chosen trials stop there."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from clipbench.core.trial import Trial
from clipbench.engine.lane_status import LaneStatus

TrialMeasures = dict[str, dict[str, float]]  # trial's id: measure: value
# Given the epoch that has ended, counted from 1, and the measures of each trial, returns the ids of those to prune.
ChoosePruned = Callable[[int, TrialMeasures], Collection[str]]


class Pruning:
    """Call it at the end of every epoch but the last.

    It passes on the measures of the epoch: `train/loss`, the mean of its steps, and the other columns of the table of
    epochs. A diverged trial has NaN for each of them, a trial that stopped early its last measures; a pruned trial is
    left out.
    """

    def __init__(self, choose: ChoosePruned, trials: Sequence[Trial], status: LaneStatus) -> None:
        self._choose, self._trials, self._status = choose, trials, status
        self._measures: TrialMeasures = {}

    def __call__(self, epoch: int, measured: Mapping[str, np.ndarray]) -> None:
        alive = self._status.alive
        if not alive.any():
            return
        for lane, trial in enumerate(self._trials):
            if alive[lane]:
                self._measures[trial.id] = {name: float(values[lane]) for name, values in measured.items()}
            elif self._status.diverged_step[lane]:
                self._measures[trial.id] = dict.fromkeys(measured, math.nan)
            elif self._status.pruned_epoch[lane]:
                self._measures.pop(trial.id, None)
        pruned = self._choose(epoch, dict(self._measures))
        chosen = np.array([trial.id in pruned for trial in self._trials])
        self._status.pruned_epoch[chosen & alive] = epoch
