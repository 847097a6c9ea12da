"""Examples that are read by their numbers, batch by batch: of tensors, of arrays in files, or of a PyTorch data set.

Whatever is random in the reading of a batch is decided by the number that comes with the batch: it seeds all global
generators, so that the examples are the same in any process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from clipbench.core import generators
from clipbench.datasets.items import Batch, Item, batch_of, checked_item, numbers_of
from clipbench.datasets.read_options import ReadOptions
from clipbench.errors import ClipbenchError, described
from clipbench.plugins.registry import DataProblem


class BatchRequest(NamedTuple):
    """A batch that is to be read."""

    number: int  # seeds the global generators
    examples: Tensor  # their places in the data set


class Examples(Protocol):
    """A finite number of examples."""

    def __len__(self) -> int:
        """Return their number."""

    def read(self, request: BatchRequest) -> Batch:
        """Return a batch."""

    def batches(self, requests: Sequence[BatchRequest]) -> Iterator[Batch]:
        """Return batches in the order of the requests, which may be read ahead."""


class TensorExamples:
    """Examples in memory."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self._parts = x, y

    def __len__(self) -> int:
        return len(self._parts[0])

    def read(self, request: BatchRequest) -> Batch:
        """Return a batch."""
        x, y = (part.index_select(0, request.examples) for part in self._parts)
        return x, y

    def batches(self, requests: Iterable[BatchRequest]) -> Iterator[Batch]:
        """Return batches in the order of the requests."""
        return map(self.read, requests)


class MappedExamples:
    """Examples in arrays that are mapped to memory: only those of a batch are read from the file."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.arrays = x, y

    def __len__(self) -> int:
        return len(self.arrays[0])

    def read(self, request: BatchRequest) -> Batch:
        """Return a batch."""
        rows = request.examples.numpy()
        x, y = (numbers_of(torch.from_numpy(_native(array[rows]))) for array in self.arrays)
        return x, y

    def batches(self, requests: Iterable[BatchRequest]) -> Iterator[Batch]:
        """Return batches in the order of the requests."""
        return map(self.read, requests)


def _native(rows: np.ndarray) -> np.ndarray:
    """Return a copy of rows of a file in a type that torch knows."""
    array = np.array(rows, rows.dtype.newbyteorder("="))
    return array.astype(np.int64) if array.dtype.kind in "iu" else array


class ChosenExamples:
    """Some of other examples: a part of a data set that was split."""

    def __init__(self, examples: Examples, chosen: np.ndarray) -> None:
        self._examples, self._chosen = examples, torch.from_numpy(chosen)

    def __len__(self) -> int:
        return len(self._chosen)

    def read(self, request: BatchRequest) -> Batch:
        """Return a batch."""
        return self._examples.read(self._among_all(request))

    def batches(self, requests: Sequence[BatchRequest]) -> Iterator[Batch]:
        """Return batches in the order of the requests, which may be read ahead."""
        return self._examples.batches([self._among_all(request) for request in requests])

    def _among_all(self, request: BatchRequest) -> BatchRequest:
        return BatchRequest(request.number, self._chosen[request.examples])


class TorchExamples:
    """Items of a map-style data set. With workers, processes of a `DataLoader` read batches ahead."""

    def __init__(self, dataset: Dataset[Any], options: ReadOptions) -> None:
        self.dataset, self._options = dataset, options

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def read(self, request: BatchRequest) -> Batch:
        """Return a batch; its items are read in order after the generators are seeded."""
        generators.seed_all(request.number)
        numbers = request.examples.tolist()
        return batch_of([self._item(number) for number in numbers], numbers)

    def _item(self, number: int) -> Item:
        with item_read(number):
            item = self.dataset[number]
        return checked_item(item, number)

    def batches(self, requests: Sequence[BatchRequest]) -> Iterator[Batch]:
        """Return batches in the order of the requests."""
        if not self._options.processes:
            return map(self.read, requests)
        return loaded(_Requested(self), list(requests), self._options)

    @property
    def targets(self) -> np.ndarray | None:
        """The targets of all examples, if the data set says them without reading its items."""
        found = _targets(self.dataset)
        return None if found is None or len(found) != len(self) else found


@contextmanager
def item_read(number: int) -> Iterator[None]:
    """Say which item it is that a user's data set cannot read."""
    try:
        yield
    except (DataProblem, ClipbenchError):
        raise
    except Exception as error:
        raise DataProblem(f"example {number} cannot be read: {described(error)}") from error


class _Requested(Dataset[Any]):
    """The batches of requests, for a `DataLoader`; problems are returned, because it would wrap them in text."""

    def __init__(self, examples: TorchExamples) -> None:
        self._examples = examples

    def __getitem__(self, request: BatchRequest) -> Batch | DataProblem:
        try:
            return self._examples.read(BatchRequest(*request))
        except DataProblem as problem:
            return problem


def loaded(dataset: Dataset[Any], sampler: Sequence[BatchRequest] | None, options: ReadOptions) -> Iterator[Any]:
    """Yield what a data set of whole batches returns, read ahead in processes."""
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=options.processes,
        prefetch_factor=options.prefetch,
        multiprocessing_context="fork",
        collate_fn=_unchanged,
        generator=torch.Generator(),  # else a number is drawn from the global generator
    )
    for batch in loader:
        if isinstance(batch, DataProblem):
            raise batch
        yield batch


def _unchanged(batch: Any) -> Any:
    return batch


def _targets(dataset: Any) -> np.ndarray | None:
    """Return the targets as torch's own data sets keep them, and torchvision's in `targets`."""
    if isinstance(dataset, Subset):
        whole = _targets(dataset.dataset)
        return None if whole is None else whole[np.asarray(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [_targets(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None
    found: Any = dataset.tensors[-1] if isinstance(dataset, TensorDataset) else getattr(dataset, "targets", None)
    if not isinstance(found, Tensor | np.ndarray | list | tuple):
        return None
    try:
        return np.asarray(found)
    except ValueError:  # of different lengths
        return None
