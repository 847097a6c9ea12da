"""What optimizers make of gradients, for the rules that are carried out after the momentum."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from clipbench.engine.clipping.lane_runs import Run
from clipbench.engine.model.stacked import Blocks
from clipbench.engine.telemetry import COSINE, FIRED, FRACTION, POST, Telemetry


class Updates:
    """The updates u = (w_old - w_new) / lr of a chunk's lanes, and their statistics, as rules look at gradients."""

    def __init__(self, params: Blocks, steps: int) -> None:
        self._params = params
        like, storage = params.lane(0), params.storage
        self.old, self.blocks, self._raw = (Blocks(like, params.lanes, storage.dtype, storage.device) for _ in range(3))
        self.telemetry = Telemetry(steps, None, self.blocks)
        self._rates: list[float] = []
        self._lr = storage.new_ones(params.lanes)

    def remember(self) -> None:
        """Keep the weights before the step."""
        self.old.storage.copy_(self._params.storage)

    def measure(self, rates: Sequence[float]) -> None:
        """Work out the updates; a learning rate of 0 makes none."""
        if rates != self._rates:
            self._rates = list(rates)
            self._lr.copy_(self._lr.new_tensor([rate or 1.0 for rate in rates]))
        torch.sub(self.old.storage, self._params.storage, out=self.blocks.storage)
        for block in self.blocks.values():
            block.view(block.shape[0], -1).div_(self._lr.unsqueeze(1))
        self._raw.storage.copy_(self.blocks.storage)
        self.telemetry.before(self.telemetry.row[0])

    def put_back(self, run: Run) -> None:
        """Step by the update as a run has changed it; where it has not, the weights stay as the optimizer left them."""
        lr = self._lr[run.lanes].unsqueeze(1)
        for name, update in run.grads.items():
            new, old, raw = (
                blocks[name][run.lanes].view(run.count, -1) for blocks in (self._params, self.old, self._raw)
            )
            new.copy_(torch.where(update == raw, new, old - lr * update))

    def keep(self, step: int) -> None:
        self.telemetry.steps[step].copy_(self.telemetry.row)

    def finish(self, run: Run, steps: torch.Tensor) -> None:
        """Say in the columns of a run's lanes, [steps, statistics, lanes], what it did to the updates."""
        mine = self.telemetry.steps[: len(steps), :, run.lanes].clone()
        run.finish(mine)
        for row in (POST, FIRED, FRACTION, COSINE):
            steps[:, row] = mine[:, row]
