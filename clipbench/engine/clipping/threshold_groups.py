"""Groups of parameters that are clipped on their own, each with a threshold of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

from clipbench.core.parameter_groups import matches, number_of_group
from clipbench.core.trial import Component
from clipbench.engine.clipping.rule import Now
from clipbench.plugins import registry


class ThresholdGroup(NamedTuple):
    """Parameters to which a rule is applied as if there were no others."""

    names: tuple[str, ...]
    factor: float = 1.0  # times the threshold of the arm

    def now(self, now: Now) -> Now:
        """Return what a step has for all groups, with the threshold of this one; in a warmup that of the arm."""
        if self.factor == 1:
            return now
        return now._replace(threshold=torch.where(now.on > 0, now.threshold * self.factor, now.threshold))


def threshold_groups(clip: Component, names: Iterable[str]) -> list[ThresholdGroup]:
    """Return the groups of these trained parameters that are clipped: without `groups` of the arm a single one."""
    excluded = clip.as_dict().get("exclude") or ()
    names = tuple(names)
    factors = factors_of(clip, names)
    kept = [name for name in names if not matches(name, excluded)]  # type: ignore[arg-type]
    together: dict[tuple[int, float], list[str]] = {}
    for name in kept:
        if (found := factors[name]) is not None:
            together.setdefault(found, []).append(name)
    return [ThresholdGroup(tuple(members), factor) for (_, factor), members in sorted(together.items())]


def factors_of(clip: Component, names: Iterable[str]) -> dict[str, tuple[int, float] | None]:
    """Return for each trained parameter its group and the group's factor; None if it is not clipped."""
    groups = groups_of_arm(clip)
    if not groups:
        return dict.fromkeys(names, (0, 1.0))
    if not isinstance(groups[0], Component):  # a number for each of them, in their order
        return {
            name: None if factor is None else (n, float(factor))  # type: ignore[arg-type]
            for n, (name, factor) in enumerate(zip(names, groups, strict=True))
        }
    numbers = {name: number_of_group(name, groups) for name in names}  # type: ignore[arg-type]
    factors = [group["threshold"] for group in groups]  # type: ignore[index]
    return {
        name: None if number is None or factors[number] is None else (number, float(factors[number]))
        for name, number in numbers.items()
    }


def groups_of_arm(clip: Component) -> tuple[object, ...]:
    """Return the groups of an arm; empty if it has none."""
    if "groups" in registry.of("strategy", clip).options:  # an option of the user's own
        return ()
    groups = clip.as_dict().get("groups")
    return groups if isinstance(groups, tuple) else ()


def norm_of_factors(clip: Component, names: Iterable[str]) -> float:
    """Return the bound of the norm over all groups, as a multiple of the arm's threshold."""
    return math.hypot(*(group.factor for group in threshold_groups(clip, names))) if groups_of_arm(clip) else 1.0
