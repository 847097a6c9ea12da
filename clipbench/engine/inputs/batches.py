"""The batches of each seed: a permutation per epoch that is cut into batches, or new examples of a stream."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clipbench.core.trial import Training
from clipbench.datasets import Dataset, Stream

Batch = tuple[Tensor, Tensor]

# Steps of an epoch of a stream, which has no end.
STREAM_EPOCH = 100


@dataclass(frozen=True)
class TrainingLength:
    """The length of training in epochs and steps, and the size of its batches."""

    examples: int
    batch: int
    epoch_steps: int  # steps of a whole epoch
    steps: int  # of the whole training
    whole: bool  # every step uses all examples in order

    @classmethod
    def of(cls, train: Training, dataset: Dataset | None) -> TrainingLength:
        """Return the length of a training. Without data, an epoch has `epoch_steps` steps, or all of them."""
        if dataset is None:
            epoch_steps = train.epoch_steps or train.steps or 1
            return cls(1, 1, epoch_steps, train.steps or epoch_steps * (train.epochs or 1), whole=True)
        if isinstance(dataset, Stream):
            batch, epoch_steps = dataset.size(train.batch_size), train.epoch_steps or STREAM_EPOCH
            steps = train.steps or epoch_steps * (train.epochs or 1)
            return cls(batch * epoch_steps, batch, epoch_steps, steps, whole=False)
        examples = len(dataset.train[0])
        batch = train.batch_size or examples
        epoch_steps = examples // batch if train.drop_last else -(-examples // batch)
        steps = train.steps or epoch_steps * (train.epochs or 1)
        return cls(examples, batch, epoch_steps, steps, whole=train.batch_size is None)

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.epoch_steps)

    def steps_in(self, epoch: int) -> int:
        """Return the steps of an epoch, counted from 0; `train.steps` may end the last one early."""
        return min(self.epoch_steps, self.steps - epoch * self.epoch_steps)

    def size(self, step_in_epoch: int) -> int:
        """Return the examples of a batch: the last of an epoch may be smaller."""
        return self.batch if self.whole else min(self.batch, self.examples - step_in_epoch * self.batch)


class BatchSource(Protocol):
    """The source of batches."""

    def fill(self, step_in_epoch: int, batch: Batch) -> None:
        """Copy the examples of the next step into a batch: [1 or lanes, size, ...]."""

    def select(self, lanes: Sequence[int]) -> BatchSource:
        """Return the source for some of its lanes from the next step on; this one must not be used afterwards."""


def batch_source(
    length: TrainingLength, dataset: Dataset | None, part: Batch, seeds: Sequence[int], device: torch.device
) -> BatchSource:
    """Return the source of a chunk's batches. Generators are on the CPU on every device."""
    if isinstance(dataset, Stream):
        return StreamBatches(dataset, part, seeds, device)
    return FullBatch(part) if length.whole else ShuffledBatches(length, part, seeds, device)


class FullBatch:
    """All examples in order, the same at every step."""

    def __init__(self, part: Batch) -> None:
        self._part = part
        self._filled = False

    def fill(self, step_in_epoch: int, batch: Batch) -> None:
        if not self._filled:
            for target, examples in zip(batch, self._part, strict=True):
                target.copy_(examples)
        self._filled = True

    def select(self, lanes: Sequence[int]) -> BatchSource:
        return FullBatch(self._part)


class ShuffledBatches:
    """A permutation of the training part for each seed and epoch."""

    def __init__(self, length: TrainingLength, part: Batch, seeds: Sequence[int], device: torch.device) -> None:
        self._length = length
        self._part = part
        self._device = device
        self._generators = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
        self._seeds = [seeds[0]] if len(self._generators) == 1 else list(seeds)  # one for all lanes, or one for each
        self._rows = torch.empty(0)  # [1 or lanes, examples] of the epoch
        self._cuts: list[Tensor] = []

    def fill(self, step_in_epoch: int, batch: Batch) -> None:
        if step_in_epoch == 0:
            self._shuffle()
        for target, examples in zip(batch, self._part, strict=True):
            torch.index_select(examples, 0, self._cuts[step_in_epoch], out=target.view(-1, *examples.shape[1:]))

    def select(self, lanes: Sequence[int]) -> BatchSource:
        other = copy.copy(self)
        if len(self._seeds) > 1:
            other._seeds = [self._seeds[lane] for lane in lanes]
            other._generators = {seed: self._generators[seed] for seed in other._seeds}
            other._cut(self._rows[lanes])
        return other

    def _shuffle(self) -> None:
        orders = {seed: torch.randperm(self._length.examples, generator=g) for seed, g in self._generators.items()}
        self._cut(torch.stack([orders[seed] for seed in self._seeds]).to(self._device))

    def _cut(self, rows: Tensor) -> None:
        """Cut the permutations into batches; the indices of all seeds of a batch are one tensor."""
        self._rows = rows
        cuts = torch.split(rows, self._length.batch, dim=1)[: self._length.epoch_steps]
        self._cuts = [cut.reshape(-1) for cut in cuts]


class StreamBatches:
    """New examples of a stream at every step, drawn once for each seed."""

    def __init__(self, stream: Stream, part: Batch, seeds: Sequence[int], device: torch.device) -> None:
        self._stream = stream
        self._device = device
        self._dtypes = [examples.dtype for examples in part]
        self._generators = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
        self._seeds = [seeds[0]] if len(self._generators) == 1 else list(seeds)  # one for all lanes, or one for each
        self._rows = self._numbers()

    def fill(self, step_in_epoch: int, batch: Batch) -> None:
        size = batch[0].shape[1]
        drawn = [self._stream.batch(generator, size) for generator in self._generators.values()]
        for target, examples, dtype in zip(batch, zip(*drawn, strict=True), self._dtypes, strict=True):
            stacked = torch.stack(examples).to(self._device, dtype)
            torch.index_select(stacked, 0, self._rows, out=target)

    def select(self, lanes: Sequence[int]) -> BatchSource:
        other = copy.copy(self)
        if len(self._seeds) > 1:
            other._seeds = [self._seeds[lane] for lane in lanes]
            other._generators = {seed: self._generators[seed] for seed in other._seeds}
            other._rows = other._numbers()
        return other

    def _numbers(self) -> Tensor:
        """Return the number of each lane's generator."""
        numbers = {seed: number for number, seed in enumerate(self._generators)}
        return torch.tensor([numbers[seed] for seed in self._seeds], device=self._device)
