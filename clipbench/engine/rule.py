"""One rule with its options on some lanes: what it is given, what it returns, and what it remembers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clipbench import registry
from clipbench.trial import Component

# Options of an arm that are the engine's business, unless a rule has one of that name itself.
COMMON = ("per", "exclude", "after")
State = dict[str, Tensor]


class Rule:
    """A plug-in with its options, for some lanes: call it once a step, with whatever statistics there are."""

    def __init__(self, arms: Sequence[Component], like: Tensor) -> None:
        self._plugin = registry.of("strategy", arms[0])
        own = self._plugin.options
        options = arms[0].without("threshold").options
        self._options: dict[str, Any] = {k: v for k, v in options if k in own or k not in COMMON}
        self.limits = [1.0]
        if "threshold" in self._plugin.options:
            self.limits = [_limit(arm) for arm in arms]
            self._options["threshold"] = like.new_tensor(self.limits).unsqueeze(1)
        self.p = float(self._options.get("p", 2.0))
        self.refuses = bool(self._plugin.facts.get("refuses", False))
        self.own = ":" in self._plugin.name
        self._init: Mapping[str, Any] = self._plugin.facts.get("init") or {}
        self._state: State = {}
        self._step = 0

    def needs(self, statistic: str) -> bool:
        return statistic in self._plugin.given

    def __call__(self, **statistics: Tensor) -> Any:
        self._step += 1
        available = statistics | {"step": self._step}
        if self._init and not self._state:
            places = next(name for name in ("new", "g", "n", "w") if name in statistics)
            self._state = initial_state(self._init, self._options, statistics[places])
        given = {name: value for name, value in available.items() if name in self._plugin.given}
        if not self._init:
            return self._plugin.function(**given, **self._options)
        *result, changed = self._plugin.function(**given, state=dict(self._state), **self._options)
        # Copied: what a rule remembers may be a view of statistics that the next step overwrites.
        self._state = {name: torch.empty_like(old).copy_(changed[name]) for name, old in self._state.items()}
        return result[0] if len(result) == 1 else tuple(result)

    def scaling(self, **statistics: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficient of each place, and whether the rule fired there."""
        result = self(**statistics)
        if not isinstance(result, tuple) or len(result) != 2:  # a tensor of two lanes would unpack, and mean nothing
            got = type(result).__name__
            raise TypeError(f"{self._plugin.name} must return (coefficient, fired), got {got}")
        return result


def initial_state(init: Mapping[str, Any], options: Mapping[str, Any], places: Tensor) -> State:
    """What a rule remembers at first: [lanes, places] of a number, [lanes, places, size] of (size, number).

    A size may be the name of the option that says it.
    """
    state = {}
    for name, start in init.items():
        size, number = start if isinstance(start, tuple) else ((), start)
        size = options[size] if isinstance(size, str) else size
        shape = (*places.shape, size) if isinstance(size, int) else places.shape
        state[name] = places.new_full(shape, number)
    return state


def _limit(arm: Component) -> float:
    """Without a threshold another option takes its place."""
    return float(arm.as_dict().get("threshold", math.inf))  # type: ignore[arg-type]
