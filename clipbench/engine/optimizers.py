"""Optimizers: a formula, which becomes part of the step, or an object of the user's for each lane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clipbench.core import generators
from clipbench.core.parameter_groups import MATCH, number_of_group
from clipbench.core.trial import Component
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.errors import Unsupported, blamed
from clipbench.plugins import registry
from clipbench.plugins.formula import Formula
from clipbench.plugins.optimizers import make_optimizer

REMEDY = "Choose an optimizer whose `step()` needs no closure and takes dense gradients."


class Update:
    """The step of a built-in optimizer as a formula with its options; learning rates may differ between lanes."""

    def __init__(self, component: Component, names: Iterable[str]) -> None:
        """`names` are those of the trained parameters."""
        plugin = registry.of("optimizer", component)
        self._formula: Formula = plugin.facts["formula"]
        of_all, groups = component.without("lr", "groups").as_dict(), groups_of(component)
        numbers = {name: number_of_group(name, groups) for name in names}
        self._options = {
            name: of_all | ({} if number is None else groups[number].without(MATCH, "lr").as_dict())
            for name, number in numbers.items()
        }
        self.slots = {name: self._formula.slots_with(options) for name, options in self._options.items()}

    def __call__(
        self, name: str, w: Tensor, g: Tensor, slots: Mapping[str, Tensor], t: Tensor, lr: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the new weights and the new slots of a parameter."""
        return self._formula(w, g, slots, t, lr, **self._options[name])


def has_formula(component: Component) -> bool:
    return registry.of("optimizer", component).facts.get("formula") is not None


def groups_of(component: Component) -> Sequence[Component]:
    """Return the groups of parameters that have options of their own."""
    if "groups" in registry.of("optimizer", component).options:  # an option of the user's own
        return ()
    return component.as_dict().get("groups") or ()  # type: ignore[return-value]


def learning_rates(component: Component) -> dict[str, float]:
    """Return the learning rates that are given, or the default: `lr`, and `lr.2` of the third group if it has one."""
    options = registry.of("optimizer", component).options
    rates = {"lr": component.as_dict().get("lr", options["lr"].default if "lr" in options else 1.0)}
    for number, group in enumerate(groups_of(component)):
        if "lr" in group.as_dict():
            rates[f"lr.{number}"] = group["lr"]
    return {name: float(rate) for name, rate in rates.items()}  # type: ignore[arg-type]


def rate_of(component: Component, name: str) -> str:
    """Return which of the learning rates a parameter has."""
    groups = groups_of(component)
    number = number_of_group(name, groups)
    return "lr" if number is None or "lr" not in groups[number].as_dict() else f"lr.{number}"


class OwnOptimizer:
    """A torch.optim.Optimizer on the parameters of one lane, which steps as in a plain loop."""

    def __init__(self, component: Component, tensors: LaneTensors, lane: int, gradients: Mapping[str, Tensor]) -> None:
        """`gradients` are those of the lane, in memory that does not move."""
        self.name, self._tensors, self._lane, self._gradients = component.name, tensors, lane, gradients
        # It gets the frozen parameters too.
        self._parameters = {name: nn.Parameter(weights, trained) for name, weights, trained in tensors.parameters(lane)}
        self._set_gradients()
        self.is_users = bool(registry.of("optimizer", component).source)  # which may draw random numbers
        self.optimizer = optimizer_of(component, list(self._parameters.items()))
        self._rates = [group.get("lr") for group in self.optimizer.param_groups]

    @property
    def has_rate(self) -> bool:
        """Whether it has learning rates that a schedule can change."""
        return all(rate is not None for rate in self._rates)

    @property
    def lr(self) -> float:
        """The learning rate at the last step; 1 where it has none."""
        return float(self.optimizer.param_groups[0].get("lr", 1.0))

    def lr_of(self, name: str) -> float:
        """The learning rate of a parameter at the last step."""
        groups = self.optimizer.param_groups
        has = lambda group: any(parameter is self._parameters[name] for parameter in group["params"])  # noqa: E731
        return float(next(filter(has, groups), groups[0]).get("lr", 1.0))

    def step(self, factor: float) -> None:
        """Step with the current gradients; `factor` is that of the learning rate."""
        tensors, lane = self._tensors, self._lane
        self._set_gradients()
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            if rate is not None and (factor != 1.0 or group["lr"] is not rate):
                group["lr"] = rate * factor
        if self.is_users:
            generators.seed_all(-1 - generators.step_number(tensors.seeds.seeds[lane], tensors.step))
        with torch.inference_mode(False), blamed("optimizer", f"{self.name} cannot take a step", REMEDY):
            self.optimizer.step()

    def _set_gradients(self) -> None:
        """Give the parameters their gradients; some have none, at this step or ever."""
        without = self._tensors.without_gradient(self._lane)
        for name, parameter in self._parameters.items():
            parameter.grad = None if name in without else self._gradients.get(name)


def torch_groups(named: Sequence[tuple[str, nn.Parameter]], groups: Sequence[Component]) -> list[dict[str, Any]]:
    """Return groups as torch takes them, without empty ones; the last one has the parameters that match none."""
    numbers = {name: number_of_group(name, groups) for name, _ in named}
    options: dict[int | None, dict[str, Any]] = {n: group.without(MATCH).as_dict() for n, group in enumerate(groups)}
    options[None] = {}
    parts = {n: [parameter for name, parameter in named if numbers[name] == n] for n in options}
    return [{"params": part, **options[n]} for n, part in parts.items() if part]


def optimizer_of(component: Component, named: Sequence[tuple[str, nn.Parameter]]) -> Optimizer:
    """Return the optimizer of a component on the parameters of one model."""
    plugin = registry.of("optimizer", component)
    groups = groups_of(component)
    options: dict[str, Any] = component.without("groups").as_dict() if groups else component.as_dict()
    with blamed("optimizer", f"{component.name} cannot be made"):
        optimizer = make_optimizer(plugin, named, options, torch_groups(named, groups) if groups else None)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held for _, parameter in named if parameter.requires_grad):
        text = f"the groups of {component.name} contain none of the parameters that are trained."
        raise Unsupported(text, "Pass on the parameters that it is given, not copies of them.", "optimizer")
    return optimizer
