"""Noise on the gradient: drawn for each seed by a generator of its own, in blocks of steps, shared by all its lanes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from clipbench.core.trial import Component
from clipbench.engine.model.stacked import Blocks
from clipbench.plugins import registry

# A call of a law costs as much as thousands of numbers, so small models get many steps at once.
BLOCK = 2**16
SEEDS = 2**32


class Noise:
    """Call it once a step, before anything looks at the gradients."""

    def __init__(self, law: Component, seeds: Sequence[int], grads: Blocks) -> None:
        self._law = law
        self._generators = {seed: generator(seed) for seed in seeds}
        self._block = (steps_at_once(grads.size), grads.size)
        self._drawn: Tensor = grads.storage.new_empty(0)  # [steps, seeds, elements]
        self._next = 0
        known = list(self._generators)
        positions = [known.index(seed) for seed in seeds] if len(known) > 1 else [0]
        self._positions = torch.tensor(positions, device=grads.storage.device)
        self._now = grads.storage.new_empty(len(positions), grads.size)  # of this step, for each lane, or for all
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

    def take(self, other: Noise) -> None:
        """Go on where another has come to, which had these seeds too, and maybe more."""
        known = list(other._generators)
        self._generators = {seed: other._generators[seed] for seed in self._generators}
        self._drawn = other._drawn[:, [known.index(seed) for seed in self._generators]]
        self._next = other._next


def generator(seed: int) -> Generator:
    """Not the seed's own, which draws the batches: seeds counted from the other end."""
    return torch.Generator().manual_seed(SEEDS - 1 - seed)


def steps_at_once(elements: int) -> int:
    return max(1, BLOCK // elements)


def try_noise(law: Component) -> None:
    """Draw a few numbers; raises what the law raises."""
    if not bool(draw(law, (2, 3), generator(0)).isfinite().all()):
        raise ValueError("it draws numbers that are not finite")


def draw(law: Component, size: tuple[int, int], generator: Generator) -> Tensor:
    """[steps, elements] of a law; elements in the order of the model's trained parameters."""
    plugin = registry.of("noise", law)
    drawn = plugin.function(size=size, generator=generator, **law.as_dict())
    if not isinstance(drawn, Tensor) or tuple(drawn.shape) != size:
        got = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
        raise TypeError(f"{plugin.name} must return a tensor of the shape {size}, got {got}")
    return drawn
