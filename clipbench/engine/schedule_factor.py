"""The factor that multiplies a learning rate or a threshold at each step: a schedule, and the warmup before it."""

from __future__ import annotations

import math
from collections.abc import Callable

from clipbench.core.trial import Component
from clipbench.plugins import registry

FactorOfStep = Callable[[int], float]  # of a step, counted from 0


def factor_of_step(schedule: Component | None, steps: int) -> FactorOfStep:
    """Return the function that gives the factor of each of `steps` steps; always 1 without a schedule."""
    if schedule is None:
        return lambda step: 1.0
    plugin = registry.of("schedule", schedule)
    options = schedule.as_dict()
    warmup = int(options.pop("warmup", 0))  # type: ignore[arg-type]

    def factor(step: int) -> float:
        if step < warmup:  # linear; the first step is not 0, and the step after the warmup has the factor 1
            return (step + 1) / (warmup + 1)
        return _checked(plugin.function(step=step - warmup, steps=max(steps - warmup, 1), **options), plugin.name)

    return factor


def try_schedule(schedule: Component, steps: int) -> None:
    """Compute the factor at the start, middle and end of a training; raise what the schedule raises."""
    factor = factor_of_step(schedule, steps)
    for step in (0, steps // 2, steps - 1):
        factor(step)


def _checked(value: object, name: str) -> float:
    number = float(value) if isinstance(value, int | float) else math.nan
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} must return a finite number of at least 0, got {value!r}")
    return number
