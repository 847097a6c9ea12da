"""What is told of a chunk's trials at the end of an epoch, and the answer: which of them shall not go on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from clipbench.core.trial import Trial
from clipbench.engine.lane_status import Fates

Told = dict[str, dict[str, float]]  # trial's id: measure: value
# Given the epoch that has ended, counted from 1, and what is told of each trial, the ids of those to prune.
Ask = Callable[[int, Told], Collection[str]]


class Asking:
    """Call it at the end of every epoch but the last.

    It tells the measures that are known of the epoch: `train/loss`, the mean of its steps, and whatever else the table
    of epochs has. A trial that has diverged is told with NaN for each of them, one that has stopped with what was last
    told of it, and one that was pruned no more.
    """

    def __init__(self, ask: Ask, trials: Sequence[Trial], fates: Fates) -> None:
        self._ask, self._trials, self._fates = ask, trials, fates
        self._told: Told = {}

    def __call__(self, epoch: int, measured: Mapping[str, np.ndarray]) -> None:
        alive = self._fates.alive
        if not alive.any():
            return
        for lane, trial in enumerate(self._trials):
            if alive[lane]:
                self._told[trial.id] = {name: float(values[lane]) for name, values in measured.items()}
            elif self._fates.diverged_step[lane]:
                self._told[trial.id] = dict.fromkeys(measured, math.nan)
            elif self._fates.pruned_epoch[lane]:
                self._told.pop(trial.id, None)
        pruned = self._ask(epoch, dict(self._told))
        chosen = np.array([trial.id in pruned for trial in self._trials])
        self._fates.pruned_epoch[chosen & alive] = epoch
