"""The slow and simple path: gradients of one lane after another by autograd, for models that cannot be stacked."""

from __future__ import annotations

import torch

from clipbench.engine import generators
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.engine.model.network import Batch


class LoopedGradients:
    """Loss and gradient of every part of the batch of every lane."""

    path = "looped"

    def __init__(self, tensors: LaneTensors, batch: Batch, sizes: list[int]) -> None:
        """`sizes` are the examples of each part."""
        self._tensors, self._batch, self._sizes = tensors, batch, sizes

    def __call__(self) -> None:
        tensors = self._tensors
        for lane, model in enumerate(tensors.models):
            if model.stopped:
                continue
            generators.seed_all(generators.step_number(tensors.seeds[lane], tensors.step))  # once for all parts
            absent = []
            x, y = (part[lane if len(part) > 1 else 0] for part in self._batch)
            parts = (
                [(x, y)] if len(self._sizes) == 1 else zip(*(torch.split(t, self._sizes) for t in (x, y)), strict=True)
            )
            for part, cut in enumerate(parts):
                if self._sizes[part]:
                    tensors.loss[lane, part], grads = model.loss_and_gradients(cut)
                    absent.append(model.without_gradient)
                    for name, block in tensors.grads.items():
                        block[lane, part].copy_(grads[name])
                else:
                    for block in (tensors.loss, *tensors.grads.values()):
                        block[lane, part].zero_()
            model.without_gradient = frozenset.intersection(*absent)
