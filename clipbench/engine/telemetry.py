"""What is measured at every step, for all lanes, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from clipbench.engine.blocks import Blocks

# Rows of a step's statistics; the first seven are the columns of the `steps` table.
LOSS, PRE, POST, MAX, FIRED, FRACTION, COSINE, WEIGHTS = range(8)
COLUMNS = (
    "train/loss",
    "grad_norm/pre",
    "grad_norm/post",
    "grad_max/pre",
    "clip/fired",
    "clip/fraction",
    "clip/cosine",
)
STATISTICS = 8

# Small enough that no sum of finite weights overflows, and still normal: only inf and NaN come through as such.
TINY = 2.0**-90


class Telemetry:
    """Statistics [steps, statistics, lanes], and the norms of each tensor that they and the rules are made of."""

    def __init__(self, steps: int, params: Blocks, grads: Blocks) -> None:
        new = grads.storage.new_zeros
        self.steps = new(steps, STATISTICS, grads.lanes)
        self.norms = new(len(grads), grads.lanes)  # of each tensor
        self.maxima = new(len(grads), grads.lanes)
        self._grads = [block.view(grads.lanes, -1) for block in grads.values()]
        self._grad_storage = grads.storage
        self._absolute = torch.empty_like(grads.storage)
        self._absolutes = _like(grads, self._absolute)
        self._weights = [block.view(params.lanes, 1, -1) for block in params.values()]
        self._probes = [row.new_full((row.shape[0], row.shape[2], 1), TINY) for row in self._weights]
        self._sums = new(len(params), grads.lanes, 1, 1)

    def before(self, step: int, loss: Tensor) -> Tensor:
        """Record the raw gradient, and return the step's rows with what a rule that does nothing would leave."""
        rows = self.steps[step]
        torch.abs(self._grad_storage, out=self._absolute)
        for tensor, gradient in enumerate(self._grads):
            torch.linalg.vector_norm(gradient, dim=1, out=self.norms[tensor])
            torch.amax(self._absolutes[tensor], dim=1, out=self.maxima[tensor])
        rows[LOSS] = loss
        torch.linalg.vector_norm(self.norms, dim=0, out=rows[PRE])
        torch.amax(self.maxima, dim=0, out=rows[MAX])
        rows[POST] = rows[PRE]
        rows[COSINE] = 1.0
        return rows

    def after(self, rows: Tensor) -> None:
        """Record whether the updated weights are finite: the row is finite exactly where they are."""
        for tensor, (weights, probe) in enumerate(zip(self._weights, self._probes, strict=True)):
            torch.bmm(weights, probe, out=self._sums[tensor])
        torch.sum(self._sums.view(len(self._weights), -1), dim=0, out=rows[WEIGHTS])

    def vanishing(self) -> Tensor:
        """Share of the raw gradient's elements below 1e-8, of each lane, at the last step."""
        small = sum((rows < 1e-8).sum(1) for rows in self._absolutes)
        return small / sum(rows.shape[1] for rows in self._absolutes)  # type: ignore[return-value, operator]


def _like(blocks: Blocks, storage: Tensor) -> list[Tensor]:
    """The blocks' layout on another storage, each tensor flat."""
    flat, start = [], 0
    for size in blocks.sizes.values():
        stop = start + blocks.lanes * size
        flat.append(storage[start:stop].view(blocks.lanes, size))
        start = stop
    return flat
