"""Weights that never move: a user's optimizer that changes nothing, though it is given gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clipbench.core.trial import Trial
from clipbench.engine.lanes import Lanes
from clipbench.engine.schedule_factor import factor_of_step
from clipbench.engine.telemetry import FRACTION, POST
from clipbench.errors import Unsupported
from clipbench.plugins import registry


class UnmovedWeights:
    """The initial weights of the lanes whose optimizer is the user's own."""

    def __init__(self, lanes: Lanes) -> None:
        rates = lanes.optimizers.rates()
        self._initial = {
            lane: lanes.workspace.params.copy_of(lane)
            for lane in lanes.optimizers.own_lanes()
            if rates[lane] and not _changes_weights(lanes.trials[lane])
        }

    def refuse(self, lanes: Lanes, steps: Tensor, diverged_step: np.ndarray) -> None:
        """Refuse an optimizer if all weights of a lane are as they were, after steps that should have moved them."""
        for lane, initial in self._initial.items():
            weights = lanes.workspace.params.lane(lane)
            if diverged_step[lane] or not all(torch.equal(weights[name], tensor) for name, tensor in initial.items()):
                continue
            refused = (steps[:, FRACTION, lane] > 0) & lanes.clipping.refuses[lane]
            factor_of = factor_of_step(lanes.trials[lane].train.schedule, lanes.length.steps)
            taken = torch.nonzero((steps[:, POST, lane] > 0) & ~refused).flatten().tolist()
            if moving := sum(factor_of(step) > 0 for step in taken):
                name = lanes.trials[lane].optimizer.name
                text = f"{name} has changed no weight in {moving} steps whose gradient and learning rate are not zero."
                raise Unsupported(text, "`step()` must change the parameters in place: `p.add_(update)`.", "optimizer")


def _changes_weights(trial: Trial) -> bool:
    """Whether the rule works on the weights, so that it may take them back."""
    return bool(registry.of("strategy", trial.clip).facts.get("on") == "weights")
