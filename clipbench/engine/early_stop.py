"""Early stop: which lanes have stopped, and the weights that they had then, whatever their tensors go through later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from clipbench.engine.model.functional import higher_is_better

if TYPE_CHECKING:
    from clipbench.core.trial import Training
    from clipbench.engine.gradients.workspace import Workspace
    from clipbench.engine.lane_status import Fates

State = tuple[dict[str, Tensor], dict[str, Tensor]]


class Stopping:
    """Looks at the measure of `train.early_stop` after every epoch that has it."""

    def __init__(self, train: Training, lanes: int, fates: Fates) -> None:
        self._fates = fates
        self._kept: dict[int, State] = {}
        self._waited = np.zeros(lanes, dtype=np.int64)
        self._best = np.full(lanes, math.inf)
        self.measure = train.early_stop.name if train.early_stop else ""
        if train.early_stop:
            self._patience, self._margin = (float(train.early_stop[name]) for name in ("patience", "min_delta"))  # type: ignore[arg-type]
            self._sign = -1.0 if higher_is_better(train, self.measure.partition("/")[2]) else 1.0

    def look(self, epoch: int, measured: Mapping[str, np.ndarray], work: Workspace, places: np.ndarray) -> None:
        """Take what was measured of every lane at the end of an epoch, counted from 1.

        The workspace has those that still step forward, whose places among all lanes are given.
        """
        if self.measure not in measured:
            return
        cost = self._sign * measured[self.measure].astype(np.float64)
        better = cost < self._best - self._margin  # NaN is never better
        self._best = np.where(better, cost, self._best)
        self._waited = np.where(better, 0, self._waited + 1)
        for lane in np.flatnonzero((self._waited >= self._patience) & self._fates.alive):
            self._fates.stopped_epoch[lane] = epoch
            self._kept[int(lane)] = _state(work, int(np.flatnonzero(places == lane)[0]))

    def restore(self, work: Workspace) -> None:
        """Give every lane that has stopped the weights and buffers of that moment, in the workspace of all lanes."""
        for lane, (params, states) in self._kept.items():
            work.params.set_lane(lane, params)
            for name, state in states.items():
                work.states[name][lane].copy_(state)


def _state(work: Workspace, lane: int) -> State:
    params = {name: tensor.clone() for name, tensor in work.params.lane(lane).items()}
    return params, {name: stack[lane].clone() for name, stack in work.states.items()}
