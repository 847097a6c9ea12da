"""By what a learning rate or a threshold is multiplied at each step: a schedule, and the warmup before it."""

from __future__ import annotations

import math
from collections.abc import Callable

from clipbench.core.trial import Component
from clipbench.plugins import registry

Course = Callable[[int], float]


def factor(schedule: Component | None, step: int, steps: int) -> float:
    """The factor of one step, counted from 0, of `steps` in all; 1 without a schedule."""
    return follow(schedule, steps)(step)


def follow(schedule: Component | None, steps: int) -> Course:
    """The same for every step: the plug-in is looked up once."""
    if schedule is None:
        return lambda step: 1.0
    plugin = registry.of("schedule", schedule)
    options = schedule.as_dict()
    warmup = int(options.pop("warmup", 0))  # type: ignore[arg-type]

    def course(step: int) -> float:
        if step < warmup:  # in equal parts, so that the first step is one and the schedule begins at its height
            return (step + 1) / (warmup + 1)
        return _usable(plugin.function(step=step - warmup, steps=max(steps - warmup, 1), **options), plugin.name)

    return course


def try_schedule(schedule: Component, steps: int) -> None:
    """Ask for the ends and the middle of a training; raises what the schedule raises."""
    course = follow(schedule, steps)
    for step in (0, steps // 2, steps - 1):
        course(step)


def _usable(value: object, name: str) -> float:
    number = float(value) if isinstance(value, int | float) else math.nan
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} must return a finite number that is not negative, got {value!r}")
    return number
