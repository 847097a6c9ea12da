"""One rule with its options: its arguments, its result, its memory and its moving threshold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clipbench.core.trial import AGAINST_LR, ARM_OPTIONS, FOLLOW_LR, Component
from clipbench.engine.schedule_factor import FactorOfStep, factor_of_step
from clipbench.plugins import registry
from clipbench.plugins.registry import Plugin

Memory = dict[str, Tensor]
Statistics = Mapping[str, Callable[[], Tensor]]


class Now(NamedTuple):
    """What is the same for all places at a step."""

    threshold: Tensor  # [rows, 1]
    on: Tensor  # 0 in a warmup
    step: Tensor  # from 1


class Rule:
    """A plug-in with the options of an arm; everything but the threshold is the same for all lanes that share it."""

    def __init__(self, arm: Component) -> None:
        self.plugin = registry.of("strategy", arm)
        self._options: dict[str, Any] = rule_options(arm, self.plugin)
        self.has_threshold = "threshold" in self.plugin.options
        self.per = place_of(arm)
        self.is_users = ":" in self.plugin.name
        self.on_weights = self.plugin.facts.get("on") == "weights"
        self.p = float(self._options.get("p", 2.0))
        self.refuses = bool(self.plugin.facts.get("refuses", False))
        self.clamps = bool(self.plugin.facts.get("clamps", False))
        self.init: Mapping[str, Any] = self.plugin.facts.get("init") or {}
        self._can_be_off = self.plugin.facts.get("loose") is None  # in a warmup: no threshold would do nothing

    def __call__(self, statistics: Statistics, now: Now, memory: Memory) -> Any:
        """Return the result, and the new memory; `statistics` are computed if the rule names them."""
        given: dict[str, Any] = {n: compute() for n, compute in statistics.items() if n in self.plugin.given}
        if "step" in self.plugin.given:
            given["step"] = now.step
        options = self._options | ({"threshold": now.threshold} if self.has_threshold else {})
        if self.init:
            *results, changed = self.plugin.function(**given, state=dict(memory), **options)
            result, memory = results[0] if len(results) == 1 else tuple(results), {n: changed[n] for n in memory}
        else:
            result = self.plugin.function(**given, **options)
        if self._can_be_off and self.has_threshold:
            result = self._unless_off(result, now.on > 0, statistics)
        return result, memory

    def scaling(self, statistics: Statistics, now: Now, memory: Memory) -> tuple[Tensor, Tensor, Memory]:
        """Return the coefficient of each place, whether the rule fired there, and the new memory."""
        result, memory = self(statistics, now, memory)
        if not isinstance(result, tuple) or len(result) != 2:  # a tensor of two rows would unpack too
            got = type(result).__name__
            raise TypeError(f"{self.plugin.name} must return (coefficient, fired), got {got}")
        return *result, memory

    def _unless_off(self, result: Any, on: Tensor, statistics: Statistics) -> Any:
        if self.plugin.facts["per"] == "element":
            return torch.where(on, result, statistics["new" if "new" in statistics else "g"]())
        if self.plugin.facts["per"] == "step":
            return result | ~on
        if not isinstance(result, tuple) or len(result) != 2:
            return result
        return torch.where(on, result[0], 1.0), result[1] & on


class Thresholds:
    """The thresholds of lanes that share a rule, at every step: they follow the arm's warmup and schedule."""

    def __init__(self, arms: Sequence[Component], rates: Component | None, steps: int, like: Tensor) -> None:
        """`rates` is the schedule of the learning rate."""
        plugin = registry.of("strategy", arms[0])
        self._base = like.new_tensor([_limit(arm) for arm in arms])
        options = {name: value for name, value in arms[0].options if name not in plugin.options}
        has_threshold = "threshold" in plugin.options
        self._warmup = int(options.get("warmup") or 0) if has_threshold else 0  # type: ignore[arg-type]
        self._loose = plugin.facts.get("loose") or math.inf
        schedule = options.get("schedule") if has_threshold else None
        self._factor_of = _threshold_factor(schedule, rates, steps) if isinstance(schedule, Component) else None

    def table(self, first: int, steps: int) -> tuple[Tensor, Tensor]:
        """Return the thresholds of the next steps from step `first`, counted from 0, and whether the rule is on.

        They are [steps, lanes] and [steps]. Steps must be asked for in order.
        """
        numbers = range(first, first + steps)
        on = self._base.new_tensor([float(step >= self._warmup) for step in numbers])
        table = self._base.expand(steps, -1)
        if self._factor_of is not None:
            factors = self._base.new_tensor([self._factor_of(step) for step in numbers if step >= self._warmup])
            factors = torch.cat([factors.new_ones(steps - len(factors)), factors])
            # An infinite threshold, which other options replace, stays infinite even at a factor of 0.
            table = torch.where(table.isinf(), table, table * factors.unsqueeze(1))
        return torch.where(on.unsqueeze(1) > 0, table, self._loose), on

    @property
    def moves(self) -> bool:
        return self._warmup > 0 or self._factor_of is not None


def place_of(arm: Component) -> str:
    """Return where the rule of an arm looks: model, tensor, unit, element or step."""
    return str(arm.as_dict().get("per") or registry.of("strategy", arm).facts["per"])


def rule_options(arm: Component, plugin: Plugin) -> dict[str, Any]:
    """Return the options that are passed to the rule of an arm, without the threshold."""
    return {k: v for k, v in arm.without("threshold").options if k in plugin.options or k not in ARM_OPTIONS}


def initial_state(init: Mapping[str, Any], options: Mapping[str, Any], places: Tensor) -> Memory:
    """Return the initial state of a rule: [lanes, places] for a number, [lanes, places, size] for (size, number).

    A size may be the name of an option.
    """
    state = {}
    for name, start in init.items():
        size, number = start if isinstance(start, tuple) else ((), start)
        size = options[size] if isinstance(size, str) else size
        shape = (*places.shape, size) if isinstance(size, int) else places.shape
        state[name] = places.new_full(shape, number)
    return state


def _threshold_factor(schedule: Component, rates: Component | None, steps: int) -> FactorOfStep:
    """Return the factor of the threshold at each step; where the learning rate is 0, that of the step before."""
    if schedule.name not in (FOLLOW_LR, AGAINST_LR):
        return factor_of_step(schedule, steps)
    rate, last = factor_of_step(rates, steps), 1.0

    def against(step: int) -> float:
        nonlocal last
        last = 1 / (rate(step) or 1 / last)
        return last

    return rate if schedule.name == FOLLOW_LR else against


def _limit(arm: Component) -> float:
    """Return the threshold of an arm; infinite where another option replaces it."""
    threshold = arm.as_dict().get("threshold", math.inf)
    return math.inf if threshold is None else float(threshold)  # type: ignore[arg-type]
