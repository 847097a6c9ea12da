"""The slow and simple path: gradients of one lane after another by autograd, for models that cannot be stacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from clipbench.core import generators
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.engine.model.network import Batch


class LoopedGradients:
    """Loss and gradient of every part of the batch of every lane."""

    def __init__(self, tensors: LaneTensors, sizes: list[int]) -> None:
        """`sizes` are the examples of each part."""
        self._tensors, self._sizes = tensors, sizes

    def __call__(self, lanes: Sequence[int], batch_of: Callable[[int], Batch]) -> None:
        """Compute them for some lanes; `batch_of` returns the batch of a lane, which the model may change."""
        tensors = self._tensors
        for lane in lanes:
            model = tensors.models[lane]
            generators.seed_all(generators.step_number(tensors.seeds.seeds[lane], tensors.step))  # once for all parts
            x, y = batch_of(lane)
            parts = zip(*(torch.split(t, self._sizes) for t in (x, y)), strict=True) if self._sizes[1:] else [(x, y)]
            absent = []
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
