"""Streams: new examples at every step, drawn from the trial's generator; validation and test are drawn once."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from clipbench.datasets.dataset import Arrays, EndlessDataset, check, fingerprint_of, pair_of
from clipbench.datasets.items import numbers_of
from clipbench.plugins.registry import DataProblem, Plugin

# Default sizes of validation and test.
SIZES = {"val": 1000, "test": 10000}
# Examples of the first batch, which shows the shapes and classes.
EXAMPLES = 256
MOST_CALLS = 100_000


@dataclass(frozen=True, eq=False)
class Stream(EndlessDataset):
    """A stream of batches. `train` is an example batch that shows their shapes; it is not trained on."""

    function: Callable[..., Any]  # of a generator, and a batch size if it takes one
    takes_size: bool

    def batch_size(self, asked: int | None) -> int:
        """Return the batch size: the one asked for, or that of the stream if it is fixed."""
        if not self.takes_size:
            return len(self.train[0])
        if asked is None:
            raise DataProblem("full batches are not supported for streams. Write a number of examples.")
        return asked

    def batch(self, generator: Generator, size: int) -> tuple[Tensor, Tensor]:
        """The next examples of the generator, as tensors."""
        given = self.function(generator=generator, **_sizes(self.takes_size, size))
        x, y = (numbers_of(torch.as_tensor(values)) for values in given)
        self.check_batch(x, y, size)
        return x, y


def open_stream(plugin: Plugin, own: Mapping[str, Any], options: Mapping[str, Any]) -> Stream:
    """Open a stream and draw validation and test by `split.seed`, apart from what the seeds of trials draw."""

    def of_part(name: str) -> Callable[..., Any]:
        given = {**own, "part": name} if "part" in plugin.given else own
        return lambda **drawn: plugin.function(**drawn, **given)

    function, takes_size = of_part("train"), "batch_size" in plugin.given
    seed = options.get("split.seed", 0)
    sizes = {name: int(options.get(f"split.{name}", size)) for name, size in SIZES.items()}
    parts = {
        name: _drawn(of_part(name), takes_size, _seed_of(name, seed), size) for name, size in sizes.items() if size
    }
    first, again = (_first(function, takes_size) for _ in range(2))
    if fingerprint_of({"train": first}) != fingerprint_of({"train": again}):
        raise DataProblem("the stream returns different examples for the same seed. Draw all of them from `generator`.")
    parts["train"] = first
    for name, (x, y) in parts.items():
        check(name, x, y)
    return Stream(first, parts.get("val"), parts.get("test"), fingerprint_of(parts), function, takes_size)


def _seed_of(name: str, seed: int) -> int:
    """Return a seed of 32 bits; those of trials are small numbers."""
    return zlib.crc32(f"{name} {seed}".encode())


def _first(function: Callable[..., Any], takes_size: bool) -> Arrays:
    return _call(function, _generator(0), takes_size, EXAMPLES)


def _drawn(function: Callable[..., Any], takes_size: bool, seed: int, size: int) -> Arrays:
    """Draw `size` examples: in one batch if the stream takes a size, else in as many as needed."""
    generator = _generator(seed)
    batches = [_call(function, generator, takes_size, size)]
    while (known := sum(len(x) for x, _ in batches)) < size:
        if not known or len(batches) == MOST_CALLS:
            raise DataProblem(f"{len(batches)} batches contain {known} examples, but {size} are needed.")
        batches.append(_call(function, generator, takes_size, size - known))
    try:
        x, y = (np.concatenate(arrays)[:size] for arrays in zip(*batches, strict=True))
    except ValueError as error:
        raise DataProblem(f"all batches must have the same shape: {error}.") from None
    return x, y


def _call(function: Callable[..., Any], generator: Generator, takes_size: bool, size: int) -> Arrays:
    return pair_of(function(generator=generator, **_sizes(takes_size, size)))


def _sizes(takes_size: bool, size: int) -> dict[str, int]:
    return {"batch_size": size} if takes_size else {}


def _generator(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)
