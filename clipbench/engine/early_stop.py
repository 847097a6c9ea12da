"""Early stopping: which lanes have stopped, and a copy of the weights that they had then."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from clipbench.core.trial import Training
from clipbench.engine.lane_status import LaneStatus
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.engine.model.network import higher_is_better


class EarlyStopping:
    """Checks the measure of `train.early_stop` after every epoch in which it is measured."""

    def __init__(self, train: Training, tensors: LaneTensors, status: LaneStatus) -> None:
        self._status = status
        averages = {} if tensors.averages is None else tensors.averages
        self._tensors = {**tensors.params, **tensors.states, **{f"average.{n}": t for n, t in averages.items()}}
        self.measure = train.early_stop.name if train.early_stop else ""
        self.waited = np.zeros(tensors.lanes, dtype=np.int64)
        self.best = np.full(tensors.lanes, math.inf)
        self.saved: dict[str, Tensor] = {}  # weights and buffers of the lanes that have stopped
        if train.early_stop:
            self.saved = {name: torch.zeros_like(block) for name, block in self._tensors.items()}
            self._patience, self._margin = (float(train.early_stop[name]) for name in ("patience", "min_delta"))  # type: ignore[arg-type]
            self._sign = -1.0 if higher_is_better(train, self.measure.partition("/")[2]) else 1.0

    def update(self, epoch: int, measured: Mapping[str, np.ndarray]) -> None:
        """Stop the lanes that have not improved for too long; `epoch` counts from 1, `measured` has [lanes]."""
        if self.measure not in measured:
            return
        cost = self._sign * measured[self.measure].astype(np.float64)
        better = cost < self.best - self._margin  # NaN is never better
        self.best[better] = cost[better]
        self.waited[:] = np.where(better, 0, self.waited + 1)
        for lane in np.flatnonzero((self.waited >= self._patience) & self._status.alive):
            self._status.stopped_epoch[lane] = epoch
            for name, block in self.saved.items():
                block[lane].copy_(self._tensors[name][lane])

    def restore(self) -> None:
        """Give every lane that has stopped the weights and buffers it stopped with."""
        for lane in np.flatnonzero(self._status.stopped_epoch):
            for name, block in self.saved.items():
                self._tensors[name][lane].copy_(block[lane])
