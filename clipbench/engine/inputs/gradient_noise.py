"""Random numbers for the gradients of a block of steps: each seed draws them for all of its lanes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor

from clipbench.core.trial import Component
from clipbench.engine.inputs.upload import upload
from clipbench.plugins import registry

# A call costs as much as drawing thousands of numbers: for small models, many steps are drawn at once.
BLOCK = 2**16
SEEDS = 2**32

Draw = Callable[[Generator], Tensor]  # of some steps: [steps, elements]


class Noise:
    """Numbers [slots, seeds, elements] for each of the next steps."""

    def __init__(
        self, make: Callable[[int], Generator], draw: Draw, steps: int, seeds: Sequence[int], slots: Tensor
    ) -> None:
        """`draw` returns the numbers of so many steps."""
        self._draw, self._slots = draw, slots
        self.generators = {seed: make(seed) for seed in seeds}
        self.drawn = torch.zeros(steps, len(self.generators), slots.shape[2], dtype=slots.dtype)
        self.used = torch.tensor([steps])  # of these steps

    def draw(self, steps: int) -> None:
        """Write the numbers of the next steps into the first slots."""
        for slot in range(steps):
            if int(self.used) == len(self.drawn):
                self.drawn.copy_(torch.stack([self._draw(g) for g in self.generators.values()], dim=1))
                self.used.zero_()
            upload(self._slots[slot], self.drawn[int(self.used)].clone())
            self.used += 1


def gradient_noise(law: Component, elements: int, seeds: Sequence[int], slots: Tensor) -> Noise:
    """Return the noise of `train.noise`, which is added to the raw gradients."""
    size = (steps_at_once(elements), elements)
    return Noise(generator, lambda g: draw(law, size, g), size[0], seeds, slots)


def privacy_noise(shapes: Mapping[str, torch.Size], dtype: torch.dtype, seeds: Sequence[int], slots: Tensor) -> Noise:
    """Return the standard normal numbers of DP-SGD, besides those of the batches; lanes of a seed share them."""

    def drawn(g: Generator) -> Tensor:
        return torch.cat([torch.randn(shape, generator=g, dtype=dtype).view(-1) for shape in shapes.values()])[None]

    return Noise(lambda seed: Generator().manual_seed((SEEDS // 2 + seed) % SEEDS), drawn, 1, seeds, slots)


def count_noise(dtype: torch.dtype, seeds: Sequence[int], slots: Tensor) -> Noise:
    """Return a standard normal number for each step, for the number of examples that were not clipped."""
    make = lambda seed: Generator().manual_seed((SEEDS // 4 + seed) % SEEDS)  # noqa: E731
    return Noise(make, lambda g: torch.randn(1, 1, generator=g, dtype=dtype), 1, seeds, slots)


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
