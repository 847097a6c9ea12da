"""Schedules: the factor of the learning rate at each step, as functions of the step and the number of steps."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt

from clipbench.plugins.decorators import schedule

Share = Annotated[float, Ge(0)]


@schedule()
def constant(step: int, steps: int) -> float:
    """The same factor at every step.

    1
    """
    return 1.0


@schedule()
def linear(step: int, steps: int, final: Share = 0.0) -> float:
    """Decrease linearly to `final`, which is reached one step after the last.

    1 + (final - 1) t / T           torch.optim.lr_scheduler.LinearLR
    """
    return 1.0 + (final - 1.0) * step / steps


@schedule()
def cosine(step: int, steps: int, final: Share = 0.0) -> float:
    """Decrease along half a cosine wave to `final`, which is reached one step after the last.

    final + (1 - final) (1 + cos(pi t / T)) / 2     Loshchilov and Hutter 2016, arXiv:1608.03983; CosineAnnealingLR
    """
    return final + (1.0 - final) * (1.0 + math.cos(math.pi * step / steps)) / 2.0


@schedule()
def step(step: int, steps: int, every: Annotated[int, Ge(1)], gamma: Share = 0.1) -> float:
    """Multiply by `gamma` every `every` steps.

    gamma^floor(t / every)          torch.optim.lr_scheduler.StepLR
    """
    return float(gamma ** (step // every))


@schedule()
def exponential(step: int, steps: int, final: Annotated[float, Gt(0)] = 0.01) -> float:
    """Multiply by the same factor at each step, down to `final`, which is reached one step after the last.

    final^(t / T)                   torch.optim.lr_scheduler.ExponentialLR
    """
    return float(final ** (step / steps))


@schedule()
def power(step: int, steps: int, exponent: float = 0.5, scale: Annotated[float, Gt(0)] = 1.0) -> float:
    """Decrease as a power of the step: 1 / sqrt(t) by default, 1 / t with `exponent: 1`; slower with a large `scale`.

    (1 + t / scale)^(-exponent)     Robbins and Monro 1951
    """
    return float((1.0 + step / scale) ** -exponent)
