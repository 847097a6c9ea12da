"""Noise on the gradient: each seed draws it with its own generator, in blocks of steps, for all of its lanes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from clipbench.core.trial import Component
from clipbench.engine.model.stacked import StackedTensors
from clipbench.plugins import registry

# A call costs as much as drawing thousands of numbers: for small models, many steps are drawn at once.
BLOCK = 2**16
SEEDS = 2**32


class GradientNoise:
    """Adds the noise of a step to the raw gradients when it is called."""

    def __init__(self, law: Component, seeds: Sequence[int], grads: StackedTensors) -> None:
        self._law = law
        self._generators = {seed: generator(seed) for seed in seeds}
        self._block = (steps_at_once(grads.size), grads.size)
        self._drawn: Tensor = grads.storage.new_empty(0)  # [steps, seeds, elements]
        self._next = 0
        known = list(self._generators)
        positions = [known.index(seed) for seed in seeds] if len(known) > 1 else [0]
        self._positions = torch.tensor(positions, device=grads.storage.device)
        self._now = grads.storage.new_empty(len(positions), grads.size)  # of this step, for each lane or for all
        parts = torch.split(self._now, list(grads.sizes.values()), dim=1)
        self._pairs = [(g.view(grads.lanes, -1), part) for g, part in zip(grads.values(), parts, strict=True)]

    def __call__(self) -> None:
        if self._next == len(self._drawn):
            blocks = [draw(self._law, self._block, generator) for generator in self._generators.values()]
            self._drawn = torch.stack(blocks, dim=1).to(self._now)
            self._next = 0
        torch.index_select(self._drawn[self._next], 0, self._positions, out=self._now)
        self._next += 1
        for gradient, part in self._pairs:
            gradient.add_(part)

    def copy_from(self, other: GradientNoise) -> None:
        """Continue with the generators of another, which has all of these seeds."""
        known = list(other._generators)
        self._generators = {seed: other._generators[seed] for seed in self._generators}
        self._drawn = other._drawn[:, [known.index(seed) for seed in self._generators]]
        self._next = other._next


def generator(seed: int) -> Generator:
    """Return the noise generator of a seed; it differs from the generator of the batches."""
    return torch.Generator().manual_seed(SEEDS - 1 - seed)


def steps_at_once(elements: int) -> int:
    return max(1, BLOCK // elements)


def try_noise(law: Component) -> None:
    """Draw a few numbers; raise what it raises."""
    if not bool(draw(law, (2, 3), generator(0)).isfinite().all()):
        raise ValueError("it must return finite numbers")


def draw(law: Component, size: tuple[int, int], generator: Generator) -> Tensor:
    """Draw [steps, elements] from a distribution; elements are in the order of the model's trained parameters."""
    plugin = registry.of("noise", law)
    drawn = plugin.function(size=size, generator=generator, **law.as_dict())
    if not isinstance(drawn, Tensor) or tuple(drawn.shape) != size:
        got = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
        raise TypeError(f"{plugin.name} must return a tensor of the shape {size}, got {got}")
    return drawn
