"""Rules with `after: momentum`: they clip the update that the optimizer makes of the gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clipbench.engine.clipping.lane_groups import LaneGroup
from clipbench.engine.model.stacked import StackedTensors
from clipbench.engine.telemetry import COSINE, FIRED, FRACTION, POST, Telemetry


class OptimizerUpdates:
    """The updates u = (w_old - w_new) / lr of a chunk's lanes, and their statistics, as rules see gradients."""

    def __init__(self, params: StackedTensors, steps: int) -> None:
        self._params = params
        given = (params.lane(0), params.lanes, params.storage.dtype, params.storage.device)
        self.old, self.values, self._raw = (StackedTensors(*given) for _ in range(3))
        self.telemetry = Telemetry(steps, None, self.values)
        self._rates: list[float] = []
        self._lr = params.storage.new_ones(params.lanes)

    def store_weights(self) -> None:
        """Store the weights before the step."""
        self.old.storage.copy_(self._params.storage)

    def measure(self, rates: Sequence[float]) -> None:
        """Compute the updates; with a learning rate of 0 they are 0."""
        if rates != self._rates:
            self._rates = list(rates)
            self._lr.copy_(self._lr.new_tensor([rate or 1.0 for rate in rates]))
        torch.sub(self.old.storage, self._params.storage, out=self.values.storage)
        for block in self.values.values():
            block.view(block.shape[0], -1).div_(self._lr.unsqueeze(1))
        self._raw.storage.copy_(self.values.storage)
        self.telemetry.before(self.telemetry.row[0])

    def apply(self, group: LaneGroup) -> None:
        """Step by the update that a group has changed; where it has not, the weights stay as the optimizer set them."""
        lr = self._lr[group.lanes].unsqueeze(1)
        for name, update in group.grads.items():
            new, old, raw = (
                tensors[name][group.lanes].view(group.count, -1) for tensors in (self._params, self.old, self._raw)
            )
            new.copy_(torch.where(update == raw, new, old - lr * update))

    def store_step(self, step: int) -> None:
        self.telemetry.steps[step].copy_(self.telemetry.row)

    def finish(self, group: LaneGroup, steps: torch.Tensor) -> None:
        """Write what a group did to the updates into the columns of its lanes, [steps, statistics, lanes]."""
        mine = self.telemetry.steps[: len(steps), :, group.lanes].clone()
        group.finish(mine)
        for row in (POST, FIRED, FRACTION, COSINE):
            steps[:, row] = mine[:, row]
