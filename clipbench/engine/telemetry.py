"""The statistics of every step, for all lanes, measured without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipbench.engine.clipping.safe_norms import lanes_to_scale, norms
from clipbench.engine.model.stacked import StackedTensors

# Rows of a step's statistics; the first seven are the columns of the `steps` table. During training, groups of lanes
# keep raw sums in POST, FRACTION and COSINE; the values of the columns are computed once, after training.
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

# So small that no sum of finite weights overflows, and not denormal: the sum is inf or NaN only if a weight is.
TINY = 2.0**-90


class Telemetry:
    """Statistics [steps, statistics, lanes]; those of the current step are in `row`, whose memory never moves."""

    def __init__(self, steps: int, params: StackedTensors | None, grads: StackedTensors) -> None:
        new = grads.storage.new_zeros
        self.steps = new(steps, STATISTICS, grads.lanes)
        self.row = new(STATISTICS, grads.lanes)
        self.norms = new(len(grads), grads.lanes)  # of each tensor
        self.maxima = new(len(grads), grads.lanes)
        self.to_scale: Tensor | None = None  # the mask of lanes whose norms need scaling at this step: see `norms`
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
        self.to_scale = lanes_to_scale(self.maxima)
        for tensor, gradient in enumerate(self._gradients):
            norms(gradient, 2.0, self.to_scale, out=self.norms[tensor])
        # The norm of the tensors' norms: one sum over all elements would lose digits in float32.
        norms(self.norms.T, 2.0, self.to_scale, out=self.row[PRE])
        self.row[LOSS].copy_(loss)

    def after(self, step: int) -> None:
        """Measure whether the updated weights are finite (their row is, exactly where they are), and store the step."""
        for tensor, (weights, probe) in enumerate(zip(self._weights, self._probes, strict=True)):
            torch.mv(weights, probe, out=self._probed[tensor])
        torch.sum(self._probed, dim=0, out=self.row[WEIGHTS])
        self.steps[step].copy_(self.row)

    def copy_from(self, other: Telemetry, lanes: Sequence[int], steps: int) -> None:
        """Copy the first `steps` steps of some lanes of another."""
        self.steps[:steps] = other.steps[:steps, :, lanes]

    def copy_back(self, other: Telemetry, lanes: Sequence[int], steps: int) -> None:
        """Copy the first `steps` steps of another back to the positions of its lanes here."""
        self.steps[:steps, :, lanes] = other.steps[:steps]

    def vanishing(self) -> Tensor:
        """Return the share of each lane's raw gradient elements below 1e-8 at the last step."""
        small = torch.stack([(magnitudes < 1e-8).sum(1) for magnitudes in self._absolutes]).sum(0)
        return small / (self._storage.numel() // self.row.shape[1])


def _like(blocks: StackedTensors, storage: Tensor) -> list[Tensor]:
    """Return views of another storage laid out as these tensors, each tensor flat."""
    flat, start = [], 0
    for size in blocks.sizes.values():
        stop = start + blocks.lanes * size
        flat.append(storage[start:stop].view(blocks.lanes, size))
        start = stop
    return flat
