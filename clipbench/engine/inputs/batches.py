"""The batches of each seed: a permutation per epoch that is cut into batches, or the examples of each batch.

They are drawn for a block of steps at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clipbench.core import generators
from clipbench.core.trial import Training
from clipbench.datasets import DataProblem, Dataset, EndlessDataset
from clipbench.datasets.augmentation import OFFSET
from clipbench.datasets.dataset import in_type
from clipbench.engine.inputs.batch_readers import BatchReader, reader_of
from clipbench.engine.inputs.upload import upload

Batch = tuple[Tensor, Tensor]

# Steps of an epoch of data whose number of examples is not known.
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
        if isinstance(dataset, EndlessDataset):
            batch = dataset.batch_size(train.batch_size) * train.accumulate
            epoch_steps = train.epoch_steps or max(1, (dataset.pass_examples or STREAM_EPOCH * batch) // batch)
            steps = train.steps or epoch_steps * (train.epochs or 1)
            examples = batch * epoch_steps
            return cls(examples, batch, epoch_steps, steps, False, used=examples, batches=train.accumulate)
        examples = dataset.size or 0
        if train.batch_size is None and not dataset.in_memory:
            raise DataProblem("full batches need all examples in memory. Write a number of examples.")
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

    def batch_sizes(self, step_in_epoch: int) -> list[int]:
        """Return the examples of each batch of a step."""
        each, left = self.batch // self.batches, self.size(step_in_epoch)
        return [min(each, left - first) for first in range(0, left, each)]


class BatchSource(Protocol):
    """The source of batches: each seed has its own, which all its lanes share."""

    @property
    def generators(self) -> Mapping[str, Mapping[int, torch.Generator]]:
        """The generators of each seed, by what they are for."""

    @property
    def counters(self) -> Mapping[str, Tensor]:
        """What has been read, from which reading can go on at the next epoch."""

    goes_on_within_epoch: bool  # also at the next block

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
    if dataset is not None and dataset.by_batch:
        assert isinstance(slots, tuple)
        return ReadBatches(length, dataset, slots, seeds)
    if length.whole:
        return FullBatch(part)
    assert isinstance(slots, Tensor)
    return ShuffledBatches(length, part, seeds, slots)


class FullBatch:
    """All examples in order, the same at every step."""

    goes_on_within_epoch = True

    def __init__(self, part: Batch) -> None:
        self._part = part
        self.generators: Mapping[str, Mapping[int, torch.Generator]] = {}
        self.counters: Mapping[str, Tensor] = {}

    def draw(self, step_in_epoch: int, steps: int) -> None:
        """There is nothing to draw."""

    def read(self, slot: int, seed: int, size: int) -> Batch:
        x, y = (examples.clone() for examples in self._part)
        return x, y


class ShuffledBatches:
    """A permutation of the training part for each seed and epoch."""

    goes_on_within_epoch = True

    def __init__(self, length: TrainingLength, part: Batch, seeds: Sequence[int], slots: Tensor) -> None:
        """`slots` are the indices of the examples: [slots, seeds, batch]."""
        self._length, self._part, self._slots = length, part, slots
        self._generators = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
        self.generators = {"batches": self._generators}
        self._orders = torch.zeros(len(self._generators), length.examples, dtype=torch.long)  # of the epoch
        self.counters = {f"order.{seed}": order for seed, order in zip(self._generators, self._orders, strict=True)}

    def draw(self, step_in_epoch: int, steps: int) -> None:
        length = self._length
        if step_in_epoch == 0:
            for order, generator in zip(self._orders, self._generators.values(), strict=True):
                torch.randperm(length.examples, generator=generator, out=order)
        start, size = step_in_epoch * length.batch, length.size(step_in_epoch)
        drawn = self._orders[:, start : start + steps * size].view(-1, steps, size)
        upload(self._slots[:steps, :, :size], drawn.transpose(0, 1).clone())  # the next orders are drawn in place

    def read(self, slot: int, seed: int, size: int) -> Batch:
        index = self._slots[slot, seed, :size]
        x, y = (examples.index_select(0, index) for examples in self._part)
        return x, y


class ReadBatches:
    """The examples of each batch: read from the data for each seed, and augmented."""

    goes_on_within_epoch = False

    def __init__(self, length: TrainingLength, dataset: Dataset, slots: Batch, seeds: Sequence[int]) -> None:
        """`slots` are the examples: [slots, seeds, batch, ...]."""
        self._length, self._dataset, self._slots = length, dataset, slots
        drawing = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
        self._augmenting = {seed: torch.Generator().manual_seed(OFFSET + seed) for seed in seeds}
        self.generators = {"batches": drawing} | ({"augment": self._augmenting} if dataset.augment else {})
        self._reader: BatchReader = reader_of(dataset, drawing, length.batch // length.batches)
        self._read = torch.zeros(1, dtype=torch.long)  # batches of each seed so far
        self.counters = {"read": self._read, **self._reader.counters}

    def draw(self, step_in_epoch: int, steps: int) -> None:
        """Read the batches of the next steps, of one size, into slots 0, 1, ..."""
        if step_in_epoch == 0:
            sizes = [size for step in range(self._length.epoch_steps) for size in self._length.batch_sizes(step)]
            self._reader.begin_epoch(sizes, int(self._read), whole=self._length.whole)
        for slot in range(steps):
            first = 0
            for size in self._length.batch_sizes(step_in_epoch + slot):
                self._read += 1
                for number, seed in enumerate(self._augmenting):
                    batch = self._as_trained(seed, *self._reader.next_batch(seed, size))
                    for target, examples in zip(self._slots, batch, strict=True):
                        upload(target[slot, number, first : first + size], examples)
                first += size

    def _as_trained(self, seed: int, x: Tensor, y: Tensor) -> Batch:
        """Return a batch in the type of training, augmented."""
        if self._dataset.augment is None:
            return x, y
        dtype = self._slots[0].dtype
        number = generators.step_number(seed, int(self._read))
        x, y = self._dataset.augment(in_type(x, dtype), in_type(y, dtype), self._augmenting[seed], number)
        expected = self._slots[1].shape[3:]
        if y.shape[1:] != expected or y.is_floating_point() != self._slots[1].is_floating_point():
            text = f"the targets of all batches must be alike: expected the shape {(len(x), *expected)}"
            raise DataProblem(f"{text}, got {tuple(y.shape)} of {y.dtype}.")
        return x, y

    def read(self, slot: int, seed: int, size: int) -> Batch:
        """Return a copy of the examples that were read into a slot, for the seed of this number."""
        x, y = (examples[slot, seed, :size].clone() for examples in self._slots)
        return x, y
