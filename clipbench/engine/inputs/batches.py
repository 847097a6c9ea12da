"""The batches of each seed: a permutation per epoch that is cut into batches, or new examples of a stream.

They are drawn for a block of steps at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clipbench.core.trial import Training
from clipbench.datasets import Dataset, Stream
from clipbench.engine.inputs.upload import upload

Batch = tuple[Tensor, Tensor]

# Steps of an epoch of a stream, which has no end.
STREAM_EPOCH = 100


@dataclass(frozen=True)
class TrainingLength:
    """The length of training in epochs and steps, and the examples of each step: one batch, or several."""

    examples: int
    batch: int  # examples of a step
    epoch_steps: int  # steps of a whole epoch
    steps: int  # of the whole training
    whole: bool  # every step uses all examples in order
    used: int = 0  # examples of an epoch that are in a batch
    batches: int = 1  # of a step, whose gradients are accumulated

    @classmethod
    def of(cls, train: Training, dataset: Dataset | None) -> TrainingLength:
        """Return the length of a training. Without data, an epoch has `epoch_steps` steps, or all of them."""
        if dataset is None:
            epoch_steps = train.epoch_steps or train.steps or 1
            return cls(1, 1, epoch_steps, train.steps or epoch_steps * (train.epochs or 1), whole=True)
        if isinstance(dataset, Stream):
            batch = dataset.size(train.batch_size) * train.accumulate
            epoch_steps = train.epoch_steps or STREAM_EPOCH
            steps = train.steps or epoch_steps * (train.epochs or 1)
            examples = batch * epoch_steps
            return cls(examples, batch, epoch_steps, steps, False, used=examples, batches=train.accumulate)
        examples = len(dataset.train[0])
        size = train.batch_size or examples
        batches = examples // size if train.drop_last else -(-examples // size)
        epoch_steps = -(-batches // train.accumulate)
        steps = train.steps or epoch_steps * (train.epochs or 1)
        used = min(examples, batches * size)
        whole = train.batch_size is None
        return cls(examples, size * train.accumulate, epoch_steps, steps, whole, used, train.accumulate)

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.epoch_steps)

    def steps_in(self, epoch: int) -> int:
        """Return the steps of an epoch, counted from 0; `train.steps` may end the last one early."""
        return min(self.epoch_steps, self.steps - epoch * self.epoch_steps)

    def size(self, step_in_epoch: int) -> int:
        """Return the examples of a step: the last one of an epoch may have fewer."""
        return self.batch if self.whole else min(self.batch, self.used - step_in_epoch * self.batch)


class BatchSource(Protocol):
    """The source of batches: each seed has its own, which all its lanes share."""

    generators: dict[int, torch.Generator]  # of each seed

    def draw(self, step_in_epoch: int, steps: int) -> None:
        """Draw the batches of the next steps, of one size, into slots 0, 1, ..."""

    def read(self, slot: int, seed: int, size: int) -> Batch:
        """Return a copy of the examples that were drawn into a slot, for the seed of this number."""


def batch_source(
    length: TrainingLength,
    dataset: Dataset | None,
    part: Batch,
    seeds: Sequence[int],
    slots: Tensor | Batch | None,
) -> BatchSource:
    """Return the source of a chunk's batches, for different seeds. Generators are on the CPU on every device."""
    if isinstance(dataset, Stream):
        assert isinstance(slots, tuple)
        return StreamBatches(length, dataset, slots, seeds)
    if length.whole:
        return FullBatch(part)
    assert isinstance(slots, Tensor)
    return ShuffledBatches(length, part, seeds, slots)


class FullBatch:
    """All examples in order, the same at every step."""

    def __init__(self, part: Batch) -> None:
        self._part = part
        self.generators: dict[int, torch.Generator] = {}

    def draw(self, step_in_epoch: int, steps: int) -> None:
        """There is nothing to draw."""

    def read(self, slot: int, seed: int, size: int) -> Batch:
        x, y = (examples.clone() for examples in self._part)
        return x, y


class ShuffledBatches:
    """A permutation of the training part for each seed and epoch."""

    def __init__(self, length: TrainingLength, part: Batch, seeds: Sequence[int], slots: Tensor) -> None:
        """`slots` are the indices of the examples: [slots, seeds, batch]."""
        self._length, self._part, self._slots = length, part, slots
        self.generators = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
        self._orders = torch.zeros(len(self.generators), length.examples, dtype=torch.long)  # of the epoch

    def draw(self, step_in_epoch: int, steps: int) -> None:
        length = self._length
        if step_in_epoch == 0:
            for order, generator in zip(self._orders, self.generators.values(), strict=True):
                torch.randperm(length.examples, generator=generator, out=order)
        start, size = step_in_epoch * length.batch, length.size(step_in_epoch)
        drawn = self._orders[:, start : start + steps * size].view(-1, steps, size)
        upload(self._slots[:steps, :, :size], drawn.transpose(0, 1).clone())  # the next orders are drawn in place

    def read(self, slot: int, seed: int, size: int) -> Batch:
        index = self._slots[slot, seed, :size]
        x, y = (examples.index_select(0, index) for examples in self._part)
        return x, y


class StreamBatches:
    """New examples of a stream at every step, drawn once for each seed."""

    def __init__(self, length: TrainingLength, stream: Stream, slots: Batch, seeds: Sequence[int]) -> None:
        """`slots` are the examples: [slots, seeds, batch, ...]."""
        self._stream, self._slots, self._batches = stream, slots, length.batches
        self.generators = {seed: torch.Generator().manual_seed(seed) for seed in seeds}

    def draw(self, step_in_epoch: int, steps: int) -> None:
        for slot in range(steps):
            for number, generator in enumerate(self.generators.values()):
                for batch in range(self._batches):
                    size = self._slots[0].shape[2] // self._batches
                    for target, examples in zip(self._slots, self._stream.batch(generator, size), strict=True):
                        upload(target[slot, number, batch * size : (batch + 1) * size], examples)

    def read(self, slot: int, seed: int, size: int) -> Batch:
        x, y = (examples[slot, seed].clone() for examples in self._slots)
        return x, y
