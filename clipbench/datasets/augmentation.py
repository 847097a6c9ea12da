"""Augmentation: a function that changes the batches that are trained on, with random numbers of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clipbench.core import generators
from clipbench.core.trial import Component
from clipbench.datasets.items import Batch
from clipbench.errors import described
from clipbench.plugins import registry
from clipbench.plugins.registry import DataProblem

# Added to the seed of a trial for the generator, and to the number of a step for the global generators.
OFFSET = 2**30


class Augmentation:
    """Call it with a batch on the CPU, the generator of the seed, and the number of the batch."""

    def __init__(self, component: Component, outputs: int) -> None:
        """`outputs` are the classes or targets of the data."""
        plugin = registry.of("augmentation", component)
        self._name, self._function, self._options = component.name, plugin.function, component.as_dict()
        self._takes_y, self._takes_generator = "y" in plugin.given, "generator" in plugin.given
        self._facts = {"outputs": outputs} if "outputs" in plugin.given else {}

    @property
    def mixes(self) -> bool:
        """Whether an example may become a mixture of several: it changes targets too."""
        return self._takes_y

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator, number: int) -> Batch:
        """Return the batch as it is trained on; `number` seeds the global generators."""
        generators.seed_all(OFFSET + number)
        given: dict[str, Any] = {"generator": generator} if self._takes_generator else {}
        given |= self._facts | ({"y": y} if self._takes_y else {})
        try:
            found = self._function(x, **given, **self._options)
        except Exception as error:
            raise DataProblem(f"{self._name} fails on inputs {tuple(x.shape)}: {described(error)}") from error
        return self._checked(found, x, y)

    def _checked(self, found: object, x: Tensor, y: Tensor) -> Batch:
        if self._takes_y:
            if not isinstance(found, tuple | list) or len(found) != 2:
                raise DataProblem(f"{self._name} has a parameter y, so it must return x and y, got {_kind(found)}.")
            new_x, new_y = found
        else:
            new_x, new_y = found, y
        for name, value in (("x", new_x), ("y", new_y)):
            if not isinstance(value, Tensor):
                raise DataProblem(f"{self._name} must return {name} as a tensor, got {_kind(value)}.")
        if new_x.shape != x.shape:
            text = f"{self._name} must keep the shape of inputs, {tuple(x.shape)}, got {tuple(new_x.shape)}."
            raise DataProblem(f"{text} The model and the evaluation have inputs of that shape.")
        if len(new_y) != len(y):
            raise DataProblem(f"{self._name} must return a target for each of {len(y)} examples, got {len(new_y)}.")
        return new_x.to(x.dtype), new_y.to(x.dtype) if new_y.is_floating_point() and x.is_floating_point() else new_y

    def try_on(self, x: Tensor, y: Tensor) -> Batch:
        """Return some examples as they are trained on; raise DataProblem if random numbers are not from `generator`."""
        with generators.preserved():
            first, again = (self(x.clone(), y.clone(), torch.Generator().manual_seed(0), 0) for _ in range(2))
        if not all(torch.equal(one, other) for one, other in zip(first, again, strict=True)):
            text = f"{self._name} returns different examples for the same generator."
            raise DataProblem(f"{text} Draw all random numbers from `generator`.")
        return first


def _kind(value: object) -> str:
    return f"{len(value)} values" if isinstance(value, tuple | list) else type(value).__name__
