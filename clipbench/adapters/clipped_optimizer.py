"""A torch optimizer that clips before each step: it takes the place of the optimizer in any training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from clipbench.clipper import ClipInfo, Clipper
from clipbench.clipper.named_parameters import Parameters
from clipbench.clipper.rule_reading import Rule
from clipbench.errors import ClipbenchError

Closure = Callable[[], Any]


class ClippedOptimizer(Optimizer):
    """An optimizer, and a rule that clips before its steps, refuses some, or changes what they have done.

    Parameters
    ----------
    optimizer
        The optimizer that takes the steps. Its groups, learning rates and state are those of this one.
    model, rule, options
        As of `clipbench.Clipper`.
    """

    def __init__(self, optimizer: Optimizer, model: Parameters, rule: Rule, **options: Any) -> None:
        self.optimizer = optimizer
        self.clipper = Clipper(model, rule, **options)
        self.info: ClipInfo | None = None  # of the last step
        super().__setstate__({})  # the hooks that every optimizer of torch has; the rest is the other optimizer's

    def __repr__(self) -> str:
        return f"ClippedOptimizer({self.clipper.arm.arm})\n{self.optimizer!r}"

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        return self.optimizer.defaults

    def step(self, closure: Closure | None = None) -> Any:
        """Clip, and take a step; a closure computes the loss and its gradient, which is clipped each time."""
        if closure is None:
            self.info = self.clipper.step(self.optimizer)
            return None
        if self.clipper.acts_after_optimizer or self.clipper.refuses:
            with torch.enable_grad():
                loss = closure()
            self.info = self.clipper.step(self.optimizer)
            return loss

        def clipped() -> Tensor | float:
            found: Tensor | float = closure()
            self.info = self.clipper(self.optimizer)
            return found

        return self.optimizer.step(clipped)  # type: ignore[arg-type]

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse: the clipper knows the parameters that it was made with."""
        raise ClipbenchError("Add the group to the optimizer, and make a ClippedOptimizer of it then.")

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict() | {"clipper": self.clipper.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state; that of an optimizer without a clipper leaves the clipper as it is."""
        rest = {name: value for name, value in state_dict.items() if name != "clipper"}
        self.optimizer.load_state_dict(rest)
        if "clipper" in state_dict:
            self.clipper.load_state_dict(state_dict["clipper"])
