"""Noise distributions: independent centered draws, in float64, since float32 would cut off heavy tails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Generator, Tensor

from clipbench.plugins.decorators import noise

Scale = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]


@noise()
def normal(size: Sequence[int], generator: Generator, scale: Scale = 1.0) -> Tensor:
    """Gaussian with variance `scale` squared.

    N(0, s^2)
    """
    # In float32, five times as fast: its tails end at 5.7 standard deviations, which one draw in 10^8 exceeds.
    return scale * torch.randn(*size, generator=generator).double()


@noise()
def uniform(size: Sequence[int], generator: Generator, scale: Scale = 1.0) -> Tensor:
    """Uniform with variance `scale` squared.

    U(-sqrt(3) s, sqrt(3) s)
    """
    return scale * math.sqrt(12) * (_uniform(size, generator) - 0.5)


@noise()
def laplace(size: Sequence[int], generator: Generator, scale: Scale = 1.0) -> Tensor:
    """Laplace, with exponential tails and variance `scale` squared.

    s (E1 - E2) / sqrt(2)           E: exponential
    """
    return scale / math.sqrt(2) * (_exponential(size, generator) - _exponential(size, generator))


@noise()
def student(size: Sequence[int], generator: Generator, df: Positive = 3.0, scale: Scale = 1.0) -> Tensor:
    """Student's t: variance s^2 df / (df - 2) if `df` is above 2, otherwise no finite variance.

    s sqrt(df (U^(-2/df) - 1)) cos(2 pi V)      Bailey 1994
    """
    radius = (df * (_positive(size, generator) ** (-2 / df) - 1)).sqrt()
    return scale * radius * torch.cos(2 * math.pi * _uniform(size, generator))


@noise()
def cauchy(size: Sequence[int], generator: Generator, scale: Scale = 1.0) -> Tensor:
    """Cauchy, without mean and variance: half of the draws are within `scale` of the median 0.

    s tan(pi (U - 1/2))
    """
    return scale * torch.tan(math.pi * (_uniform(size, generator) - 0.5))


@noise()
def weibull(size: Sequence[int], generator: Generator, shape: Positive = 0.2, scale: Scale = 1.0) -> Tensor:
    """Weibull minus its mean, with variance `scale` squared: a heavy right tail if `shape` c is below 1.

    s (E^(1/c) - mean) / deviation      Gorbunov et al. 2020, arXiv:2005.10785, with c = 0.2
    """
    mean, square = math.gamma(1 + 1 / shape), math.gamma(1 + 2 / shape)
    return scale * (_exponential(size, generator) ** (1 / shape) - mean) / math.sqrt(square - mean * mean)


@noise()
def burr(size: Sequence[int], generator: Generator, c: Positive = 1.0, d: Positive = 2.3, scale: Scale = 1.0) -> Tensor:
    """Burr type XII minus its mean, with variance `scale` squared and a power-law tail; c d must be above 2.

    s ((U^(-1/d) - 1)^(1/c) - mean) / deviation     Gorbunov et al. 2020, arXiv:2005.10785, with c = 1, d = 2.3
    """
    if c * d <= 2:
        raise ValueError(f"c d must be above 2, got {c * d:g}")
    mean, square = (d * _beta(d - power / c, 1 + power / c) for power in (1, 2))
    draws = (_positive(size, generator) ** (-1 / d) - 1) ** (1 / c)
    return scale * (draws - mean) / math.sqrt(square - mean * mean)


@noise()
def pareto(
    size: Sequence[int], generator: Generator, alpha: Annotated[float, Gt(1)] = 1.5, scale: Scale = 1.0
) -> Tensor:
    """Pareto minus its mean: variance s^2 alpha / ((alpha - 1)^2 (alpha - 2)) if `alpha` is above 2, else infinite.

    s (U^(-1/alpha) - alpha / (alpha - 1))      alpha must be above 1, where the mean is finite
    """
    return scale * (_positive(size, generator) ** (-1 / alpha) - alpha / (alpha - 1))


@noise()
def levy(
    size: Sequence[int], generator: Generator, alpha: Annotated[float, Gt(0), Le(2)] = 1.5, scale: Scale = 1.0
) -> Tensor:
    """Symmetric Lévy alpha-stable: `alpha: 2` is Gaussian with variance 2 s^2, 1 is Cauchy; no variance below 2.

    s sin(a V) / cos(V)^(1/a) (cos((1 - a) V) / E)^((1 - a) / a)    Chambers, Mallows and Stuck 1976
    """
    angle = math.pi * (_uniform(size, generator) - 0.5)
    tail = (torch.cos((1 - alpha) * angle) / _exponential(size, generator)) ** ((1 - alpha) / alpha)
    return scale * torch.sin(alpha * angle) / torch.cos(angle) ** (1 / alpha) * tail


def _uniform(size: Sequence[int], generator: Generator) -> Tensor:
    return torch.rand(*size, generator=generator, dtype=torch.float64)


def _positive(size: Sequence[int], generator: Generator) -> Tensor:
    """Uniform without 0."""
    return 1.0 - _uniform(size, generator)


def _exponential(size: Sequence[int], generator: Generator) -> Tensor:
    return -_positive(size, generator).log()  # four times as fast as `exponential_`


def _beta(a: float, b: float) -> float:
    return math.exp(math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))
