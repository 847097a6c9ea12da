"""Early stopping: which lanes have stopped, and a copy of the weights that they had then."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from clipbench.core.trial import Training
from clipbench.engine.gradients.workspace import Workspace
from clipbench.engine.lane_status import LaneStatus
from clipbench.engine.model.network import higher_is_better

State = tuple[dict[str, Tensor], dict[str, Tensor]]  # weights and buffers


class EarlyStopping:
    """Checks the measure of `train.early_stop` after every epoch in which it is measured."""

    def __init__(self, train: Training, lanes: int, status: LaneStatus) -> None:
        self._status = status
        self._saved: dict[int, State] = {}
        self._waited = np.zeros(lanes, dtype=np.int64)
        self._best = np.full(lanes, math.inf)
        self.measure = train.early_stop.name if train.early_stop else ""
        if train.early_stop:
            self._patience, self._margin = (float(train.early_stop[name]) for name in ("patience", "min_delta"))  # type: ignore[arg-type]
            self._sign = -1.0 if higher_is_better(train, self.measure.partition("/")[2]) else 1.0

    def update(
        self, epoch: int, measured: Mapping[str, np.ndarray], workspace: Workspace, positions: np.ndarray
    ) -> None:
        """Stop the lanes that have not improved for too long; `epoch` counts from 1, `measured` has [lanes] of all.

        The workspace holds the lanes in training, which are at `positions` among all lanes.
        """
        if self.measure not in measured:
            return
        cost = self._sign * measured[self.measure].astype(np.float64)
        better = cost < self._best - self._margin  # NaN is never better
        self._best = np.where(better, cost, self._best)
        self._waited = np.where(better, 0, self._waited + 1)
        for lane in np.flatnonzero((self._waited >= self._patience) & self._status.alive):
            self._status.stopped_epoch[lane] = epoch
            row = int(np.flatnonzero(positions == lane)[0])
            self._saved[int(lane)] = _state(workspace, row)
            if workspace.models:
                workspace.models[row].stopped = True

    def restore(self, workspace: Workspace) -> None:
        """Give every stopped lane the weights and buffers it stopped with, in the workspace of all lanes."""
        for lane, (params, states) in self._saved.items():
            workspace.params.set_lane(lane, params)
            for name, state in states.items():
                workspace.states[name][lane].copy_(state)


def _state(workspace: Workspace, lane: int) -> State:
    return workspace.params.copy_of(lane), {name: stack[lane].clone() for name, stack in workspace.states.items()}
