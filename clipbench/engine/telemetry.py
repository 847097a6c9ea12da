"""What is measured at every step, for all lanes, without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipbench.engine.clipping.safe_norms import norms, odd_lanes
from clipbench.engine.model.stacked import Blocks

# Rows of a step's statistics; the first seven are the columns of the `steps` table. While training goes on, runs of
# lanes keep raw sums in POST, FRACTION and COSINE; what is meant by them is worked out once, when training is over.
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
    """Statistics [steps, statistics, lanes]; those of the step under way stand in `row`, whose place never moves."""

    def __init__(self, steps: int, params: Blocks | None, grads: Blocks) -> None:
        new = grads.storage.new_zeros
        self.steps = new(steps, STATISTICS, grads.lanes)
        self.row = new(STATISTICS, grads.lanes)
        self.norms = new(len(grads), grads.lanes)  # of each tensor
        self.maxima = new(len(grads), grads.lanes)
        self.odd: Tensor | None = None  # lanes of this step that need care: see `norms`
        self._gradients = [block.view(grads.lanes, -1) for block in grads.values()]
        self._storage = grads.storage
        self._absolute = torch.empty_like(grads.storage)
        self._absolutes = _like(grads, self._absolute)
        self._weights = [block.view(block.shape[0], -1) for block in params.values()] if params else []
        self._probes = [weights.new_full(weights.shape[1:], TINY) for weights in self._weights]
        self._probed = new(len(self._weights), grads.lanes)

    def before(self, loss: Tensor) -> None:
        """Measure the raw gradient."""
        torch.abs(self._storage, out=self._absolute)
        for tensor, absolutes in enumerate(self._absolutes):
            torch.amax(absolutes, dim=1, out=self.maxima[tensor])
        torch.amax(self.maxima, dim=0, out=self.row[MAX])
        self.odd = odd_lanes(self.maxima)
        for tensor, gradient in enumerate(self._gradients):
            norms(gradient, 2.0, self.odd, out=self.norms[tensor])
        # The norm of the tensors' norms: one sum over all elements would lose digits in float32.
        norms(self.norms.T, 2.0, self.odd, out=self.row[PRE])
        self.row[LOSS].copy_(loss)

    def after(self, step: int) -> None:
        """Measure whether the updated weights are finite (their row is, exactly where they are), and keep the step."""
        for tensor, (weights, probe) in enumerate(zip(self._weights, self._probes, strict=True)):
            torch.mv(weights, probe, out=self._probed[tensor])
        torch.sum(self._probed, dim=0, out=self.row[WEIGHTS])
        self.steps[step].copy_(self.row)

    def take(self, other: Telemetry, lanes: Sequence[int], steps: int) -> None:
        """What was measured of lanes of another, in so many steps, is theirs here."""
        self.steps[:steps] = other.steps[:steps, :, lanes]

    def put(self, other: Telemetry, lanes: Sequence[int], steps: int) -> None:
        """Bring what another has measured back to the places of its lanes here."""
        self.steps[:steps, :, lanes] = other.steps[:steps]

    def vanishing(self) -> Tensor:
        """Share of the raw gradient's elements below 1e-8, of each lane, at the last step."""
        small = torch.stack([(magnitudes < 1e-8).sum(1) for magnitudes in self._absolutes]).sum(0)
        return small / (self._storage.numel() // self.row.shape[1])


def _like(blocks: Blocks, storage: Tensor) -> list[Tensor]:
    """The blocks' layout on another storage, each tensor flat."""
    flat, start = [], 0
    for size in blocks.sizes.values():
        stop = start + blocks.lanes * size
        flat.append(storage[start:stop].view(blocks.lanes, size))
        start = stop
    return flat
