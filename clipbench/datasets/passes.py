"""Passes over an `IterableDataset`: each is seeded by a number, and yields batches of equal size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import IterableDataset

from clipbench.core.generators import States
from clipbench.datasets.examples import item_read, loaded
from clipbench.datasets.items import Batch, batch_of, checked_item
from clipbench.datasets.read_options import ReadOptions
from clipbench.plugins.registry import DataProblem

MOST_WORKERS = 1


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

    def batches(self, number: int, size: int, ahead: bool = True) -> Iterator[Batch]:
        """Yield the batches of a pass that is seeded with a number. Examples that fill no batch are left out."""
        if ahead and self._options.processes:
            return loaded(_Pass(self.dataset, number, size), None, self._options)
        return map(_or_raise, iter(_Pass(self.dataset, number, size)))

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


class _Pass(IterableDataset[Any]):
    """The batches of a pass, for a `DataLoader`; problems are yielded, because it would wrap them in text."""

    def __init__(self, dataset: IterableDataset[Any], number: int, size: int) -> None:
        self._dataset, self._number, self._size = dataset, number, size

    def __iter__(self) -> Iterator[Batch | DataProblem]:
        items = _items(self._dataset, self._number)
        try:
            for first in itertools.count(0, self._size):
                batch = list(itertools.islice(items, self._size))
                if len(batch) < self._size:
                    return
                yield batch_of(batch, range(first, first + self._size))
        except DataProblem as problem:
            yield problem


def _or_raise(batch: Batch | DataProblem) -> Batch:
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
