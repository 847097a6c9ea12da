"""Streams: new examples at every step, drawn from the trial's generator; validation and test are drawn once."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from clipbench.datasets.dataset import Arrays, Dataset, check, fingerprint_of, pair_of
from clipbench.errors import Unsupported
from clipbench.plugins.registry import DataProblem, Plugin

if TYPE_CHECKING:
    from torch import Generator, Tensor

# Default sizes of validation and test.
SIZES = {"val": 1000, "test": 10000}
# Examples of the first batch, which shows the shapes and classes.
EXAMPLES = 256
MOST_CALLS = 100_000


@dataclass(frozen=True, eq=False)
class Stream(Dataset):
    """A stream of batches. `train` is an example batch that shows their shapes; it is not trained on."""

    function: Callable[..., Any]  # of a generator, and a batch size if it takes one
    takes_size: bool

    def size(self, asked: int | None) -> int:
        """Return the batch size: the one asked for, or that of the stream if it is fixed."""
        if not self.takes_size:
            return len(self.train[0])
        if asked is None:
            raise DataProblem("full batches are not supported for streams. Write a number of examples.")
        return asked

    def batch(self, generator: Generator, size: int) -> tuple[Tensor, Tensor]:
        """The next examples of the generator, as tensors."""
        import torch

        given = self.function(generator=generator, **_sizes(self.takes_size, size))
        x, y = (_long(torch.as_tensor(values)) for values in given)
        if x.shape != (size, *self.train[0].shape[1:]) or y.shape != (size, *self.train[1].shape[1:]):
            expected = (size, *self.train[0].shape[1:])
            raise DataProblem(
                f"all batches must have the same shape: expected inputs {expected}, got {tuple(x.shape)}."
            )
        for name, values, known in (("class", y, self._classes), ("token", x, self._tokens)):
            if known and int(values.max()) >= known:
                text = f"{name} {int(values.max())} was drawn, but the first examples, validation and test have only"
                remedy = "Draw so many that all of them occur: `split: {test: 100000}`."
                raise Unsupported(f"{text} 0 to {known - 1}.", remedy, "data")
        return x, y

    @cached_property
    def _classes(self) -> int:
        return self.outputs if self.classes else 0

    @cached_property
    def _tokens(self) -> int:
        return self.tokens


def open_stream(plugin: Plugin, own: Mapping[str, Any], options: Mapping[str, Any]) -> Stream:
    """Open a stream and draw validation and test by `split.seed`, apart from what the seeds of trials draw."""

    def function(**given: Any) -> Any:
        return plugin.function(**given, **own)

    takes_size = "batch_size" in plugin.given
    seed = options.get("split.seed", 0)
    sizes = {name: int(options.get(f"split.{name}", size)) for name, size in SIZES.items()}
    parts = {name: _drawn(function, takes_size, _seed_of(name, seed), size) for name, size in sizes.items() if size}
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
    import torch

    return torch.Generator().manual_seed(seed)


def _long(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_floating_point() else tensor.long()
