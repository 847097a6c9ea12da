"""Objectives without data: models whose output is the loss, for `train: {loss: output}`.

`start` is a number or a list; with `dim`, that many numbers from its first to its last. `scatter` is the standard
deviation of the seeds' starting points around it; without it all seeds are the same, unless there is noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from clipbench.plugins.decorators import model

Point = float | Sequence[float]
Scatter = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]


class ObjectiveFunction(nn.Module):
    """A function of a point `x`, the only parameter; in float64, so that the start keeps all of its digits."""

    def __init__(self, start: Point, dim: int | None, scatter: float, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        point = evenly(start, dim)
        self.x = nn.Parameter(point + scatter * torch.randn_like(point) if scatter else point)
        self.function = function

    def forward(self) -> Tensor:
        return self.function(self.x)


class Bowl(ObjectiveFunction):
    curvature: Tensor

    def __init__(self, start: Point, dim: int | None, scatter: float, curvature: Point) -> None:
        super().__init__(start, dim, scatter, self.height)
        self.register_buffer("curvature", evenly(curvature, len(self.x)))

    def height(self, x: Tensor) -> Tensor:
        return (self.curvature * x * x).sum() / 2


@model()
def quadratic(
    start: Point = 1.0, dim: Count | None = None, scatter: Scatter = 0.0, curvature: Point = 1.0
) -> nn.Module:
    """A quadratic bowl; different curvatures make it ill-conditioned.

    sum(a x^2) / 2                  `curvature` may be a list, from the first coordinate to the last
    """
    return Bowl(start, dim, scatter, curvature)


@model()
def power(start: Point = 1.0, dim: Count | None = None, scatter: Scatter = 0.0, exponent: float = 4.0) -> nn.Module:
    """A power of the distance: flat at its minimum and steep far away if `exponent` is above 2.

    sum(|x|^p)
    """
    return ObjectiveFunction(start, dim, scatter, lambda x: x.abs().pow(exponent).sum())


@model()
def scalar_rnn(start: Point = 1.5, scatter: Scatter = 0.0, steps: Count = 50) -> nn.Module:
    """One linear recurrent unit over many steps: its gradient explodes above w = 1 and vanishes below.

    (w^T - 1)^2 / 2                 Pascanu et al. 2013, arXiv:1211.5063, section 2.3
    """
    return ObjectiveFunction(start, None, scatter, lambda w: (w.pow(steps) - 1).square().sum() / 2)


@model()
def rosenbrock(start: Sequence[float] = (-1.2, 1.0), scatter: Scatter = 0.0) -> nn.Module:
    """The Rosenbrock function: a curved valley that is found quickly and followed slowly.

    sum(100 (x[i+1] - x[i]^2)^2 + (1 - x[i])^2)     Rosenbrock 1960
    """
    if len(start) < 2:
        raise ValueError(f"start must have at least 2 coordinates, got {len(start)}")
    return ObjectiveFunction(
        start, None, scatter, lambda x: (100 * (x[1:] - x[:-1] ** 2).square() + (1 - x[:-1]).square()).sum()
    )


def evenly(values: Point, dim: int | None) -> Tensor:
    """Return the numbers; with `dim`, that many, evenly spaced from the first to the last."""
    listed = [values] if isinstance(values, int | float) else list(values)
    if not listed:
        raise ValueError("a point must have at least one coordinate")
    if dim is None or dim == len(listed):
        return torch.tensor(listed, dtype=torch.float64)
    if len(listed) > 2:
        raise ValueError(f"expected {dim} numbers, or a first and a last, got {len(listed)}")
    return torch.linspace(listed[0], listed[-1], dim, dtype=torch.float64)
