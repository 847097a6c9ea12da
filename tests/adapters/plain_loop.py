"""What the tests of the adapters share: a tiny regression, and the plain loop that they are compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import clipbench

STEPS, BATCH = 6, 4
# At thresholds at which each of them acts; the last one refuses some of the steps.
ARMS = ["norm@0.5", "agc@0.02", "value@0.1", "zclip(warmup=2)@0.5", "skip@4.0"]


def model_of() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))


def examples() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return torch.randn(STEPS * BATCH, 3, generator=draw), 3 * torch.randn(STEPS * BATCH, 1, generator=draw)


def batches() -> list[tuple[Tensor, Tensor]]:
    x, y = examples()
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.05)


def plain_loop(arm: str, accumulate: int = 1, **options: Any) -> tuple[Tensor, torch.optim.Optimizer]:
    """Return the weights after training with a Clipper, and the optimizer."""
    model = model_of()
    optimizer, clipper = optimizer_of(model), clipbench.Clipper(model, arm, **options)
    for number, batch in enumerate(batches(), start=1):
        (loss_of(model, batch) / accumulate).backward()
        if number % accumulate == 0:
            clipper.step(optimizer)
            optimizer.zero_grad()
    return weights_of(model), optimizer


def weights_of(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def steps_of(optimizer: torch.optim.Optimizer) -> set[float]:
    """The numbers of steps that an Adam has counted: those that were not refused."""
    return {float(state["step"]) for state in optimizer.state.values()}
