"""Schedules: by what a learning rate is multiplied at each step, as functions of the step and of how many there are."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt

from clipbench.plugins.registry import schedule

Share = Annotated[float, Ge(0)]


@schedule()
def constant(step: int, steps: int) -> float:
    """The same at every step.

    1
    """
    return 1.0


@schedule()
def linear(step: int, steps: int, final: Share = 0.0) -> float:
    """Straight down to `final`, which would be reached one step after the last.

    1 + (final - 1) t / T           torch.optim.lr_scheduler.LinearLR
    """
    return 1.0 + (final - 1.0) * step / steps


@schedule()
def cosine(step: int, steps: int, final: Share = 0.0) -> float:
    """Half a cosine wave down to `final`, which would be reached one step after the last.

    final + (1 - final) (1 + cos(pi t / T)) / 2     Loshchilov and Hutter 2016, arXiv:1608.03983; CosineAnnealingLR
    """
    return final + (1.0 - final) * (1.0 + math.cos(math.pi * step / steps)) / 2.0


@schedule()
def step(step: int, steps: int, every: Annotated[int, Ge(1)], gamma: Share = 0.1) -> float:
    """Times `gamma` after every so many steps.

    gamma^floor(t / every)          torch.optim.lr_scheduler.StepLR
    """
    return float(gamma ** (step // every))


@schedule()
def exponential(step: int, steps: int, final: Annotated[float, Gt(0)] = 0.01) -> float:
    """By the same factor at each step down to `final`, which would be reached one step after the last.

    final^(t / T)                   torch.optim.lr_scheduler.ExponentialLR
    """
    return float(final ** (step / steps))


@schedule()
def power(step: int, steps: int, exponent: float = 0.5, scale: Annotated[float, Gt(0)] = 1.0) -> float:
    """A power of the step: 1 / sqrt(t) as it is, 1 / t with `exponent: 1`, slower with a larger `scale`.

    (1 + t / scale)^(-exponent)     Robbins and Monro 1951
    """
    return float((1.0 + step / scale) ** -exponent)
