"""Data sets whose training examples are not in memory: read batch by batch, by number or in passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clipbench.datasets.corrupt import KINDS
from clipbench.datasets.dataset import Arrays, Dataset, EndlessDataset, check, fingerprint_of, pair_of
from clipbench.datasets.examples import BatchRequest, ChosenExamples, Examples, MappedExamples, TorchExamples
from clipbench.datasets.passes import Passes
from clipbench.datasets.read_options import MOST_BYTES, ReadOptions, shown
from clipbench.datasets.split import PARTS, indices_of_parts, split_off
from clipbench.plugins.registry import DataProblem

# Examples that show shapes and classes, and whose content is part of the fingerprint.
SHOWN = 1000
# Examples that are read at once into memory.
PIECE = 256
# Options that need all training examples at once.
WHOLE = ("standardize", "impute", "resize", *(f"corrupt.{kind}" for kind in KINDS))


@dataclass(frozen=True, eq=False)
class NumberedDataset(Dataset):
    """A data set of numbered examples that are read when they are needed."""

    in_memory = False

    source: Examples

    @property
    def size(self) -> int | None:
        """The number of training examples."""
        return len(self.source)


@dataclass(frozen=True, eq=False)
class PassesDataset(EndlessDataset):
    """A data set that is passed over again and again."""

    source: Passes

    @property
    def pass_examples(self) -> int | None:
        """The number of examples of a pass, if the data set has a length."""
        return self.source.examples

    def batch_size(self, asked: int | None) -> int:
        """Return the batch size that is asked for."""
        if asked is None:
            raise DataProblem("full batches are not supported for an IterableDataset. Write a number of examples.")
        return asked


def read_all(examples: Examples, like: Arrays) -> Arrays:
    """Return all examples as arrays; `like` are some of them. Batches are seeded with their numbers, from 0."""
    size = len(examples)
    pieces = torch.split(torch.arange(size), PIECE)
    x, y = (np.empty((size, *part.shape[1:]), part.dtype) for part in like)
    batches = examples.batches([BatchRequest(number, piece) for number, piece in enumerate(pieces)])
    for piece, batch in zip(pieces, batches, strict=True):
        for name, whole, read in (("inputs", x, batch[0]), ("targets", y, batch[1])):
            if whole.shape[1:] != read.shape[1:]:
                text = f"the {name} of examples {int(piece[0])} to {int(piece[-1])} have the shape"
                text += f" {tuple(read.shape[1:])}, and those before {whole.shape[1:]}."
                raise DataProblem(f"{text} All examples need one shape: resize, crop or pad them.")
            if np.can_cast(read.numpy().dtype, whole.dtype, "same_kind"):
                whole[piece[0] : piece[-1] + 1] = read.numpy()
            else:
                raise DataProblem(f"the {name} of some examples are integers, of others real numbers.")
    return x, y


def some_of(examples: Examples, count: int) -> Arrays:
    """Return examples at equal distances as arrays."""
    rows = torch.linspace(0, len(examples) - 1, min(count, len(examples)), dtype=torch.float64).round().long()
    x, y = (part.numpy() for part in examples.read(BatchRequest(0, rows)))
    return x, y


def bytes_of(like: Arrays, count: int) -> int:
    """Return the memory that so many examples take as arrays."""
    return sum(part[:1].nbytes for part in like) * count


def unloaded(found: Any, options: Mapping[str, Any], how: ReadOptions) -> Dataset:
    """Return data whose training examples, or all if they come in one part, are not in memory."""
    whole = [name for name in WHOLE if options.get(name)]
    if whole:
        text = f"{whole[0]} needs all training examples in memory, and these are read batch by batch."
        raise DataProblem(f"{text} Remove it, and do it in the data set; or write read: {{in_memory: true}}.")
    given = found if isinstance(found, Mapping) else {"train": found}
    if set(given) - set(PARTS):
        raise DataProblem(f"expected a mapping with `train` and optionally `val` and `test`, got {sorted(given)}.")
    train = given["train"]
    if isinstance(train, Passes):
        return _of_passes(train, given, options, isinstance(found, Mapping))
    y = targets_of(train)
    every, seed = np.arange(len(train)), options.get("split.seed", 0)
    if isinstance(found, Mapping):
        if options.get("folds") is not None:
            raise DataProblem("folds are not supported for data that come in parts.")
        share = given.get("val")
        shares = {"val": share} if isinstance(share, float) else {}
        chosen = split_off(len(train), y, every, shares, seed)
    else:
        chosen = indices_of_parts(len(train), y, options)
    rows = chosen.pop("train")[: options.get("limit")]
    parts = {name: _in_memory(name, ChosenExamples(train, part), how) for name, part in chosen.items()}
    parts |= _others(given)
    source = train if len(rows) == len(train) and not chosen else ChosenExamples(train, rows)
    shown_part = some_of(source, SHOWN)
    classes = int(y.max()) + 1 if y is not None and len(y) and y.dtype.kind in "iu" else 0
    fingerprint = _fingerprint(shown_part, parts, len(source))
    return NumberedDataset(shown_part, parts.get("val"), parts.get("test"), fingerprint, source, fewest_outputs=classes)


def _of_passes(train: Passes, given: Mapping[str, Any], options: Mapping[str, Any], in_parts: bool) -> Dataset:
    for name in ("limit", "folds"):
        if options.get(name) is not None:
            raise DataProblem(f"{name} is not supported for an IterableDataset. Remove it.")
    if (not in_parts and any(options.get(f"split.{name}", 0.2) for name in ("val", "test"))) or isinstance(
        given.get("val"), float
    ):
        text = "an IterableDataset cannot be split."
        remedy = 'Return {"train": ..., "val": ..., "test": ...}, or write split: {val: 0, test: 0}.'
        raise DataProblem(f"{text} {remedy}")
    first, again = (tuple(part.numpy() for part in train.first(0, SHOWN)) for _ in range(2))
    if not all(np.array_equal(one, other) for one, other in zip(first, again, strict=True)):
        text = "two passes over the IterableDataset with the same seed differ."
        raise DataProblem(f"{text} Draw random numbers from the global generators of torch, numpy or `random`.")
    x, y = first
    parts = _others(given)
    fingerprint = _fingerprint((x, y), parts, train.examples or 0)
    return PassesDataset((x, y), parts.get("val"), parts.get("test"), fingerprint, train)


def _others(given: Mapping[str, Any]) -> dict[str, Arrays]:
    """Return the parts for validation and test that were given."""
    parts = {n: pair_of(part) for n, part in given.items() if n != "train" and not isinstance(part, float | None)}
    for name, (x, y) in parts.items():
        check(name, x, y)
    return parts


def in_memory(name: str, part: Any, how: ReadOptions) -> Any:
    """Return a part for validation or test in memory."""
    if isinstance(part, Passes):
        return _passed(name, part)
    return _in_memory(name, part, how) if isinstance(part, TorchExamples | MappedExamples) else part


def _in_memory(name: str, examples: Examples, how: ReadOptions) -> Arrays:
    like = some_of(examples, PIECE)
    size = bytes_of(like, len(examples))
    if not how.in_memory and size > MOST_BYTES:
        text = f"the {name} part takes {shown(size)}, but it is read into memory, where data may take"
        raise DataProblem(f"{text} {shown(MOST_BYTES)}. Make it smaller, or write read: {{in_memory: true}}.")
    found = read_all(examples, like)
    check(name, *found)
    return found


def _passed(name: str, passes: Passes) -> Arrays:
    """Return the examples of one whole pass."""
    batches: list[Arrays] = []
    size = 0
    for batch in passes.whole():
        x, y = (part.numpy() for part in batch)
        size += x.nbytes + y.nbytes
        if size > MOST_BYTES:
            raise DataProblem(f"the {name} part takes more than {shown(MOST_BYTES)} in memory. Make it smaller.")
        batches.append((x, y))
    try:
        x, y = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    except ValueError as error:
        raise DataProblem(f"the examples of the {name} part have no common shape: {error}.") from None
    return x, y


def targets_of(examples: Any) -> np.ndarray | None:
    """Return the targets of all examples if they are known, in one number each, without reading the inputs."""
    if isinstance(examples, TorchExamples):
        found = examples.targets
    else:
        found = examples.arrays[1] if examples.arrays[1].ndim == 1 else None
    if found is None or found.ndim != 1 or found.dtype.kind not in "iu":
        return None
    found = np.asarray(found, np.int64)
    _, y = some_of(examples, PIECE)  # a transform of targets may change them
    rows = np.linspace(0, len(examples) - 1, len(y)).round().astype(int)
    return found if np.array_equal(y, found[rows]) else None


def _fingerprint(some: Arrays, parts: Mapping[str, Arrays], examples: int) -> str:
    """Return the fingerprint of some of the training examples, their number, and the other parts."""
    return fingerprint_of({"train": some, "examples": (np.array([examples]),) * 2, **parts})
