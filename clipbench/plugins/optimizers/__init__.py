"""Optimizers: each as the class of torch.optim, and as a formula that gives the same weights.

A formula is one step of one parameter, `new_w, new_slots = adam(w, g, slots, t, lr, betas=..., ...)`. It is traced once
and compiled together with the rest of a training step, so it has no state of its own, changes nothing in place and
branches on options only. Its slots have torch's names and values. What torch computes in Python from the number of the
step is written such that float32 loses no digits: 1 - b^t is -expm1(t log b).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clipbench.plugins.registry import REQUIRED, Plugin

Params = list[nn.Parameter] | list[dict[str, Any]]


def make_optimizer(
    plugin: Plugin,
    named: Sequence[tuple[str, nn.Parameter]],
    options: Mapping[str, Any],
    groups: list[dict[str, Any]] | None = None,
) -> Optimizer:
    """Return the optimizer of a plug-in, which is given the parameters, or (name, parameter) if it asks for `named`.

    Where there are `groups` of these parameters, as torch has them, it is given these.
    """
    params: Params = groups if groups else [parameter for _, parameter in named]
    if "slots" in plugin.given:  # a formula that is no class of torch.optim
        return FormulaOptimizer(plugin, params, options)
    passed = {"params": params, "named": list(named)}
    optimizer = plugin.function(**{name: passed[name] for name in plugin.given}, **options)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"it returned {type(optimizer).__name__}, not a torch.optim.Optimizer")
    return optimizer


class FormulaOptimizer(Optimizer):
    """An optimizer of torch that takes the steps of a plug-in's formula."""

    def __init__(self, plugin: Plugin, params: Params, options: Mapping[str, Any]) -> None:
        defaults = {name: option.default for name, option in plugin.options.items() if option.default is not REQUIRED}
        super().__init__(params, defaults | dict(options))
        self._formula = plugin.facts["formula"]
        for group in self.param_groups:
            for parameter in group["params"][:1]:  # a formula may refuse its options
                self._stepped(parameter, torch.zeros_like(parameter), {}, group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step; `closure` is for optimizers that compute the loss several times, which this one does not."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    new, state = self._stepped(parameter, parameter.grad, self.state[parameter], group)
                    parameter.copy_(new)
                    self.state[parameter] = state

    @torch.no_grad()
    def _stepped(
        self, w: Tensor, g: Tensor, state: Mapping[str, Any], group: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the new weights and the new state: the slots, and `step`, the number of steps taken."""
        options = {name: value for name, value in group.items() if name in self.defaults and name != "lr"}
        step = state.get("step", 0) + 1
        slots = {key: value for key, value in state.items() if key != "step"} or self._formula.start(w, options)
        new, slots = self._formula(w.detach(), g, slots, w.new_tensor(step), w.new_tensor(group["lr"]), **options)
        return new, {**slots, "step": step}
