"""One rule with its options on some lanes: its arguments, its result, its state and its moving threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clipbench.core.trial import AGAINST_LR, ARM_OPTIONS, FOLLOW_LR, Component
from clipbench.engine.schedule_factor import FactorOfStep, factor_of_step
from clipbench.plugins import registry
from clipbench.plugins.registry import Plugin

State = dict[str, Tensor]


class Rule:
    """A plug-in with its options, for some lanes: call it once a step with the statistics."""

    def __init__(self, arms: Sequence[Component], like: Tensor) -> None:
        self._arm = arms[0]
        self._plugin = registry.of("strategy", arms[0])
        self._options: dict[str, Any] = rule_options(arms[0], self._plugin)
        self.threshold: Tensor | None = None
        if "threshold" in self._plugin.options:
            self.threshold = like.new_tensor([_limit(arm) for arm in arms]).unsqueeze(1)
            self._options["threshold"] = self.threshold
        self._base = like.new_ones(())  # the threshold without warmup and schedule
        self._warmup, self._factor_of = 0, factor_of_step(None, 1)
        self._factor: float | None = 1.0  # multiplies the threshold; None: nothing is clipped
        self.p = float(self._options.get("p", 2.0))
        self.refuses = bool(self._plugin.facts.get("refuses", False))
        self.is_users = ":" in self._plugin.name
        self._init: Mapping[str, Any] = self._plugin.facts.get("init") or {}
        self._state: State = {}
        self._step = 0

    def follow(self, rates: Component | None, steps: int) -> None:
        """Let the threshold follow the arm's warmup and schedule; `rates` is the schedule of the learning rate."""
        if self.threshold is None:
            return
        self._base = self.threshold.clone()
        options = {k: v for k, v in self._arm.options if k not in self._plugin.options}
        self._warmup = int(options.get("warmup") or 0)  # type: ignore[arg-type]
        if isinstance(schedule := options.get("schedule"), Component):
            self._factor_of = _threshold_factor(schedule, rates, steps)

    def copy_from(self, others: Sequence[tuple[Rule, int]]) -> None:
        """Continue with the state of others: for each lane, its rule until now and its row there."""
        first = others[0][0]  # all have taken as many steps, and their thresholds follow the same schedule
        self._step, self._factor, self._factor_of = first._step, first._factor, first._factor_of
        if self.threshold is not None:
            self.threshold.copy_(torch.stack([rule.threshold[row] for rule, row in others]))  # type: ignore[index]
        self._state = {name: torch.stack([rule._state[name][row] for rule, row in others]) for name in first._state}

    def needs(self, statistic: str) -> bool:
        return statistic in self._plugin.given

    def __call__(self, **statistics: Tensor) -> Any:
        self._step += 1
        self._move_threshold()
        result = self._call(statistics)
        off = self._factor is None and self._plugin.facts.get("loose") is None
        return self._identity(statistics) if off else result

    def _move_threshold(self) -> None:
        factor = None if self._step <= self._warmup else self._factor_of(self._step - 1)
        if factor == self._factor or self.threshold is None:
            return
        self._factor = factor
        if factor is None:
            self.threshold.fill_(self._plugin.facts.get("loose") or math.inf)
        else:  # an infinite threshold, which other options replace, stays infinite even at a factor of 0
            self.threshold.copy_(torch.where(self._base.isinf(), self._base, self._base * factor))

    def _identity(self, statistics: Mapping[str, Tensor]) -> Any:
        """Return the result of a rule that changes nothing."""
        place = self._plugin.facts["per"]
        if place == "element":
            return statistics["new" if "new" in statistics else "g"]
        ones = torch.ones_like(statistics["n" if "n" in statistics else "w"])
        return ones.bool() if place == "step" else (ones, torch.zeros_like(ones, dtype=torch.bool))

    def _call(self, statistics: Mapping[str, Tensor]) -> Any:
        available = {**statistics, "step": self._step}
        if self._init and not self._state:
            places = next(name for name in ("new", "g", "n", "w") if name in statistics)
            self._state = initial_state(self._init, self._options, statistics[places])
        given = {name: value for name, value in available.items() if name in self._plugin.given}
        if not self._init:
            return self._plugin.function(**given, **self._options)
        *result, changed = self._plugin.function(**given, state=dict(self._state), **self._options)
        # Copied: the new state may be a view of statistics that the next step overwrites.
        self._state = {name: torch.empty_like(old).copy_(changed[name]) for name, old in self._state.items()}
        return result[0] if len(result) == 1 else tuple(result)

    def scaling(self, **statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coefficient of each place, and whether the rule fired there."""
        result = self(**statistics)
        if not isinstance(result, tuple) or len(result) != 2:  # a tensor of two lanes would unpack too
            got = type(result).__name__
            raise TypeError(f"{self._plugin.name} must return (coefficient, fired), got {got}")
        return result


def rule_options(arm: Component, plugin: Plugin) -> dict[str, Any]:
    """Return the options that are passed to the rule of an arm, without the threshold."""
    return {k: v for k, v in arm.without("threshold").options if k in plugin.options or k not in ARM_OPTIONS}


def initial_state(init: Mapping[str, Any], options: Mapping[str, Any], places: Tensor) -> State:
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
    return float(arm.as_dict().get("threshold", math.inf))  # type: ignore[arg-type]
