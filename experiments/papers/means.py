"""The mean of some numbers, as the smallest thing that can be learned: one weight, and a squared distance to each."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def points(values: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Nothing to learn from, and the numbers to learn."""
    y = torch.tensor(values, dtype=torch.float64)
    return torch.zeros(len(y), 1, dtype=torch.float64), y


def coin(generator: torch.Generator, batch_size: int, p: float = 0.25) -> tuple[Tensor, Tensor]:
    """Ones with probability p, else zeros: fresh ones at every step."""
    y = (torch.rand(batch_size, generator=generator, dtype=torch.float64) < p).double()
    return torch.zeros(batch_size, 1, dtype=torch.float64), y


class Constant(nn.Module):
    def __init__(self, start: float, spread: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(start, dtype=torch.float64) + spread * torch.randn(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.x.expand(len(inputs))


def constant(start: float = 0.0, spread: float = 0.0) -> nn.Module:
    """The same answer everywhere; `spread` scatters where seeds start."""
    return Constant(start, spread)


def half_square(output: Tensor, target: Tensor) -> Tensor:
    """Mean of half of the squared distance, whose gradient on an example is x - a."""
    return ((output - target) ** 2).mean() / 2
