"""What a data function returned, opened: PyTorch data sets and arrays in files are read into memory if they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from clipbench.core.generators import States
from clipbench.datasets.dataset import Arrays
from clipbench.datasets.examples import BatchRequest, Examples, MappedExamples, TorchExamples
from clipbench.datasets.passes import Passes
from clipbench.datasets.read_options import ReadOptions
from clipbench.datasets.unloaded import bytes_of, in_memory, read_all, some_of
from clipbench.plugins.registry import DataProblem

# Examples that are read first: they show the memory that all take, and whether they are random.
FIRST = 32
ARRAYS = (np.ndarray, Tensor)


def opened(found: Any, how: ReadOptions) -> Any:
    """Return the same, or the same mapping, with arrays in the place of examples that fit into memory."""
    if isinstance(found, Mapping):
        parts = {name: _opened(part, how) for name, part in found.items()}
        return {name: part if name == "train" else in_memory(name, part, how) for name, part in parts.items()}
    return _opened(found, how)


def is_unloaded(found: Any) -> bool:
    """Whether the training part, or the only one, is not in memory."""
    part = found.get("train") if isinstance(found, Mapping) else found
    return isinstance(part, TorchExamples | MappedExamples | Passes)


def _opened(part: Any, how: ReadOptions) -> Any:
    if isinstance(part, IterableDataset):
        return Passes(part, how)
    if isinstance(part, Dataset):
        return _of_dataset(part, how)
    is_pair = isinstance(part, tuple | list) and len(part) == 2 and all(isinstance(each, ARRAYS) for each in part)
    if is_pair and (how.in_memory is False or any(map(is_mapped, part))):
        return _of_arrays(part[0], part[1], how)
    return part


def _of_dataset(dataset: Dataset[Any], how: ReadOptions) -> Arrays | Examples:
    if not hasattr(dataset, "__len__"):
        raise DataProblem(f"{type(dataset).__name__} has no `__len__`. Define it, or derive from IterableDataset.")
    examples = TorchExamples(dataset, how)
    if not len(examples):
        raise DataProblem("the data set is empty.")
    like, is_random = _tried(examples)
    if is_random and how.in_memory:
        text = "the examples are random, so that they must be read anew for each batch."
        raise DataProblem(f"{text} Remove read: {{in_memory: true}}, or the random transforms.")
    if is_random or not how.fits(bytes_of(like, len(examples))):
        return examples
    return read_all(examples, like)


def _tried(examples: TorchExamples) -> tuple[Arrays, bool]:
    """Return the first examples, and whether they are random; refuse those that the global generators do not decide."""
    request = BatchRequest(0, torch.arange(min(FIRST, len(examples))))
    before = States.seeded(request.number)
    batches = [examples.read(request) for _ in range(2)]
    is_random = not States.now().are_those_of(before)
    if not all(torch.equal(one, other) for one, other in zip(*batches, strict=True)):
        text = "an example is not the same when it is read again with the same seed."
        raise DataProblem(f"{text} Draw random numbers from the global generators of torch, numpy or `random`.")
    x, y = (part.numpy() for part in batches[0])
    return (x, y), is_random


def is_mapped(values: Any) -> bool:
    """Whether an array or a tensor is mapped to memory from a file; of a private map, torch does not say it."""
    if isinstance(values, Tensor):
        return values.device.type == "cpu" and values.untyped_storage().filename is not None
    while isinstance(values, np.ndarray):
        if isinstance(values, np.memmap):
            return True
        values = values.base
    return False


def _of_arrays(x: Any, y: Any, how: ReadOptions) -> Any:
    """Return examples that are read from the files, or what was given, if it fits into memory."""
    arrays = [_unread(values) for values in (x, y)]
    if any(array.ndim == 0 or array.dtype.kind not in "biuf" for array in arrays):
        return x, y  # the usual checks say what is wrong
    if len(arrays[0]) != len(arrays[1]):
        raise DataProblem(f"x and y must have the same length, got {len(arrays[0])} and {len(arrays[1])}.")
    examples = MappedExamples(arrays[0], arrays[1])
    if len(examples) and not how.fits(bytes_of(some_of(examples, 1), len(examples))):
        return examples
    return tuple(np.array(array) for array in arrays)


def _unread(values: Any) -> np.ndarray:
    """Return values as an array without reading them."""
    return values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)
