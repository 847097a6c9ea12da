"""The slow and simple path: gradients of one lane after another by autograd, for models that cannot be stacked."""

from __future__ import annotations

from clipbench.engine import generators
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.engine.model.network import Batch


class LoopedStep:
    """Loss and gradient of every lane; same interface as a compiled program."""

    path = "looped"

    def __init__(self, tensors: LaneTensors, batch: Batch) -> None:
        self._tensors = tensors
        self._batch = batch

    def __call__(self) -> None:
        tensors = self._tensors
        for lane, model in enumerate(tensors.models):
            if model.stopped:
                continue
            generators.seed_all(generators.step_number(tensors.seeds[lane], tensors.step))
            tensors.loss[lane], grads = model.loss_and_gradients(batch_of_lane(self._batch, lane))
            tensors.grads.set_lane(lane, grads)


def batch_of_lane(batch: Batch, lane: int) -> Batch:
    x, y = batch
    return x[lane if len(x) > 1 else 0], y[lane if len(y) > 1 else 0]
