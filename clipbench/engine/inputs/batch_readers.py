"""Readers return the next batch of each seed: of examples with numbers, of passes over data, or of a stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

from clipbench.core import generators
from clipbench.datasets import DataProblem, Dataset, NumberedDataset, PassesDataset, Stream
from clipbench.datasets.examples import BatchRequest, Examples, TensorExamples
from clipbench.datasets.passes import BatchOfPass

Batch = tuple[Tensor, Tensor]
Generators = Mapping[int, Generator]  # of each seed

# Added to the number of a batch for the global generators: models draw from those of the number itself.
OFFSET = 2**31


class BatchReader(Protocol):
    """The batches of each seed, in order: the first of every seed, then the second of every seed."""

    @property
    def counters(self) -> Mapping[str, Tensor]:
        """What has been read; a reader with the same numbers goes on from there."""

    def begin_epoch(self, sizes: Sequence[int], read: int, whole: bool) -> None:
        """Begin an epoch of batches of these sizes after so many; `whole`: all examples in order, as one batch."""

    def next_batch(self, seed: int, size: int) -> Batch:
        """Return the next batch of a seed, on the CPU."""


def reader_of(dataset: Dataset, drawing: Generators, size: int) -> BatchReader:
    """Return the reader of a data set, in batches of a size."""
    if isinstance(dataset, Stream):
        return _StreamReader(dataset, drawing)
    if isinstance(dataset, PassesDataset):
        return _PassReader(dataset, list(drawing), size)
    if isinstance(dataset, NumberedDataset):
        return _NumberedReader(dataset.source, drawing, dataset)
    return _NumberedReader(TensorExamples(*map(torch.as_tensor, dataset.train)), drawing)


class _StreamReader:
    """What a function draws from the generator of each seed."""

    def __init__(self, stream: Stream, drawing: Generators) -> None:
        self._stream, self._drawing = stream, drawing
        self.counters: Mapping[str, Tensor] = {}

    def begin_epoch(self, sizes: Sequence[int], read: int, whole: bool) -> None:
        """There is nothing to begin."""

    def next_batch(self, seed: int, size: int) -> Batch:
        """Return the next batch of a seed."""
        return self._stream.batch(self._drawing[seed], size)


class _NumberedReader:
    """Examples in the order of a permutation for each seed and epoch."""

    def __init__(self, examples: Examples, drawing: Generators, dataset: Dataset | None = None) -> None:
        """Batches are checked if they are of a `dataset` that was not read as a whole."""
        self._examples, self._drawing, self._dataset = examples, drawing, dataset
        self.counters: Mapping[str, Tensor] = {}
        self._batches: Iterator[Batch] = iter(())

    def begin_epoch(self, sizes: Sequence[int], read: int, whole: bool) -> None:
        """Draw the permutations of an epoch, and begin to read the batches of all seeds in turn."""
        count = len(self._examples)
        orders = [
            torch.arange(count) if whole else torch.randperm(count, generator=generator)
            for generator in self._drawing.values()
        ]
        used = sum(sizes)
        cut = zip(*(torch.split(order[:used], list(sizes)) for order in orders), strict=True)
        self._batches = self._examples.batches(
            [
                BatchRequest(OFFSET + generators.step_number(seed, number), rows)
                for number, of_seeds in enumerate(cut, read + 1)
                for seed, rows in zip(self._drawing, of_seeds, strict=True)
            ]
        )

    def next_batch(self, seed: int, size: int) -> Batch:
        """Return the next batch of a seed: that of the seed whose turn it is."""
        x, y = next(self._batches)
        if self._dataset is not None:
            _check(self._dataset, x, y, size)
        return x, y


class _PassReader:
    """Passes over the data of each seed, one after another, whatever an epoch is."""

    def __init__(self, dataset: PassesDataset, seeds: Sequence[int], size: int) -> None:
        self._dataset, self._seeds, self._size = dataset, list(seeds), size
        self._begun = torch.zeros(len(seeds), dtype=torch.long)  # passes
        self._read = torch.zeros(len(seeds), dtype=torch.long)  # batches of the pass
        self.counters = {"passes": self._begun, "of_pass": self._read}
        self._open: dict[int, Iterator[BatchOfPass]] = {}

    def begin_epoch(self, sizes: Sequence[int], read: int, whole: bool) -> None:
        """A pass goes on over epochs."""

    def next_batch(self, seed: int, size: int) -> Batch:
        """Return the next batch of a seed, of this pass or else of the next one."""
        place = self._seeds.index(seed)
        if seed not in self._open:
            self._open[seed] = self._opened(seed, max(1, int(self._begun[place])), int(self._read[place]))
        number, batch = next(self._open[seed])
        self._begun[place] += number == 0
        self._read[place] = number + 1
        _check(self._dataset, *batch, size)
        return batch

    def _opened(self, seed: int, number: int, read: int) -> Iterator[BatchOfPass]:
        """Return the batches from a pass on, of which some have been read."""
        batches = self._dataset.source.batches(OFFSET + generators.step_number(seed, number), self._size)
        return itertools.islice(batches, read, None)


def _check(dataset: Dataset, x: Tensor, y: Tensor, size: int) -> None:
    dataset.check_batch(x, y, size)
    for name, values in (("inputs", x), ("targets", y)):
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise DataProblem(f"the {name} of a batch contain NaN or infinite values. Fill or remove them first.")
