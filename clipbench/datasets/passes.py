"""Passes over an `IterableDataset`: each is seeded by a number, and yields batches of equal size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset

from clipbench.core.generators import States
from clipbench.datasets.examples import item_read, loaded
from clipbench.datasets.items import Batch, batch_of, checked_item
from clipbench.datasets.read_options import ReadOptions
from clipbench.plugins.registry import DataProblem

MOST_WORKERS = 1


class BatchOfPass(NamedTuple):
    """A batch, and its place in the pass, from 0."""

    place: int
    batch: Batch


class Passes:
    """An `IterableDataset`, whose examples come in an order of its own."""

    def __init__(self, dataset: IterableDataset[Any], options: ReadOptions) -> None:
        self.dataset, self._options = dataset, replace(options, workers=min(options.workers, MOST_WORKERS))
        if options.workers > MOST_WORKERS:
            text = f"an IterableDataset has an order of its own, which {options.workers} workers would change."
            raise DataProblem(f"{text} Write read: {{workers: 1}}.")
        iterator: object = iter(dataset)
        if iterator is dataset:
            text = "the IterableDataset is its own iterator, which cannot be at several places at once."
            raise DataProblem(f"{text} Write `__iter__` as a generator function.")

    @property
    def examples(self) -> int | None:
        """The number of examples of a pass, if the data set has a length."""
        return len(self.dataset) if hasattr(self.dataset, "__len__") else None

    def batches(self, number: int, size: int) -> Iterator[BatchOfPass]:
        """Yield the batches of endlessly many passes, which are seeded with this number and those after it.

        Examples of a pass that fill no batch are left out.
        """
        passes = _Batches(self.dataset, number, size)
        return loaded(passes, None, self._options) if self._options.processes else map(_or_raise, passes)

    def first(self, number: int, most: int) -> Batch:
        """Return the first examples of a pass, at most so many."""
        items = list(itertools.islice(_items(self.dataset, number), most))
        if not items:
            raise DataProblem("the IterableDataset yields no examples.")
        return batch_of(items, range(len(items)))

    def whole(self, size: int = 256) -> Iterator[Batch]:
        """Yield all examples of a pass, in batches of that size and a smaller last one."""
        items = _items(self.dataset, 0)
        for first in itertools.count(0, size):
            batch = list(itertools.islice(items, size))
            if not batch:
                if not first:
                    raise DataProblem("the IterableDataset yields no examples.")
                return
            yield batch_of(batch, range(first, first + len(batch)))


class _Batches(IterableDataset[Any]):
    """The batches of passes, for a `DataLoader`; problems are yielded, because it would wrap them in text."""

    def __init__(self, dataset: IterableDataset[Any], number: int, size: int) -> None:
        self._dataset, self._number, self._size = dataset, number, size

    def __iter__(self) -> Iterator[BatchOfPass | DataProblem]:
        try:
            for number in itertools.count(self._number):
                yield from self._of_pass(number)
        except DataProblem as problem:
            yield problem

    def _of_pass(self, number: int) -> Iterator[BatchOfPass]:
        items = _items(self._dataset, number)
        for place in itertools.count():
            batch = list(itertools.islice(items, self._size))
            if len(batch) < self._size:
                if place:
                    return
                text = f"a pass over the IterableDataset has less than a batch of {self._size} examples"
                raise DataProblem(f"{text}: {len(batch)}.")
            first = place * self._size
            yield BatchOfPass(place, batch_of(batch, range(first, first + self._size)))


def _or_raise(batch: BatchOfPass | DataProblem) -> BatchOfPass:
    if isinstance(batch, DataProblem):
        raise batch
    return batch


def _items(dataset: IterableDataset[Any], seed: int) -> Iterator[Any]:
    """Yield the items of a pass, whose random numbers are its own whatever is drawn between two of them."""
    own = States.seeded(seed)
    items: Iterator[Any] | None = None
    for number in itertools.count():
        outside = States.now()
        own.restore()
        try:
            with item_read(number):
                items = iter(dataset) if items is None else items
                item = next(items, END)
            own = States.now()
        finally:
            outside.restore()
        if item is END:
            return
        yield checked_item(item, number)


END = object()
