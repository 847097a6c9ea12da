"""Weights that never move: a user's optimizer that changes nothing, though it is given gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clipbench.core.trial import Trial
from clipbench.engine.lane_group import LaneGroup
from clipbench.engine.model.stacked import StackedTensors
from clipbench.engine.schedule_factor import factor_of_step
from clipbench.engine.step import FRACTION, POST
from clipbench.errors import Unsupported
from clipbench.plugins import registry


class UnmovedWeights:
    """The initial weights of the lanes whose optimizer is the user's own."""

    def __init__(self, trials: Sequence[Trial], groups: Sequence[LaneGroup], params: StackedTensors) -> None:
        self._trials, self._params = trials, params
        self._refuses = {lane: group.refuses for group in groups for lane in group.lanes}
        self._initial: dict[int, dict[str, Tensor]] = {
            lane: params.copy_of(lane)
            for group in groups
            for lane, optimizer in zip(group.lanes, group.own, strict=False)
            if optimizer.lr and not _changes_weights(trials[lane])
        }

    def refuse(self, steps: np.ndarray, diverged_step: np.ndarray) -> None:
        """Refuse an optimizer if all weights of a lane are as they were, after steps that should have moved them."""
        for lane, initial in self._initial.items():
            weights = self._params.lane(lane)
            if diverged_step[lane] or not all(torch.equal(weights[name], tensor) for name, tensor in initial.items()):
                continue
            refused = (steps[:, FRACTION, lane] > 0) & self._refuses[lane]
            factor_of = factor_of_step(self._trials[lane].train.schedule, len(steps))
            taken = np.flatnonzero((steps[:, POST, lane] > 0) & ~refused).tolist()
            if moving := sum(factor_of(step) > 0 for step in taken):
                name = self._trials[lane].optimizer.name
                text = f"{name} has changed no weight in {moving} steps whose gradient and learning rate are not zero."
                raise Unsupported(text, "`step()` must change the parameters in place: `p.add_(update)`.", "optimizer")


def _changes_weights(trial: Trial) -> bool:
    """Whether the rule works on the weights, so that it may take them back."""
    return bool(registry.of("strategy", trial.clip).facts.get("on") == "weights")
