"""The threshold of a rule at each step of a training loop: warmup and schedule."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from clipbench.core.trial import AGAINST_LR, FOLLOW_LR, Component
from clipbench.engine.clipping.rule import Now, Rule, Thresholds
from clipbench.errors import InputError, Place

WITH_OPTIMIZER = "Call `clipper(optimizer)` or `clipper.step(optimizer)`."


class ThresholdCourse:
    """What a rule is told of each step: its threshold, whether it is in a warmup, and the number of the step."""

    def __init__(self, arm: Component, rule: Rule, steps: int | None) -> None:
        """`steps` is the length of the training, which schedules need."""
        given = {name: value for name, value in arm.options if name not in rule.plugin.options}
        schedule = given.get("schedule")
        name = schedule.name if isinstance(schedule, Component) else ""
        self.follows_lr = name in (FOLLOW_LR, AGAINST_LR)
        if name and not self.follows_lr and steps is None:
            remedy = "Write for example Clipper(..., steps=10_000)."
            raise InputError.at(Place(arm.arm), f"the schedule {name} needs the number of steps.", remedy)
        self._against = name == AGAINST_LR
        self._arm = arm.without("schedule") if self.follows_lr else arm
        self._steps, self._takes_step = steps, "step" in rule.plugin.given
        self._initial_lr: float | None = None
        self._factor = 1.0  # of the learning rate; where that is 0, the one before
        self.is_constant = not (name or self._takes_step or given.get("warmup"))
        self._constant: Now | None = None

    def now(self, step: int, like: Tensor, optimizer: Optimizer | None = None) -> Now:
        """Return what holds at a step, counted from 0."""
        if self._constant is not None and self._constant.threshold.dtype == like.dtype:
            return self._constant
        thresholds = Thresholds([self._arm], None, self._steps or 1, like)
        # After the last step, the threshold stays as it is.
        table, on = thresholds.table(step if self._steps is None else min(step, self._steps), 1)
        if self.follows_lr:
            factor = self._lr_factor(optimizer)
            table = torch.where((on > 0).unsqueeze(1) & table.isfinite(), table * factor, table)
        now = Now(table, on[0], like.new_tensor(step + 1.0))
        if self.is_constant:
            self._constant = now
        return now

    def state_dict(self) -> dict[str, float | None]:
        return {"initial_lr": self._initial_lr, "factor": self._factor}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        self._initial_lr, self._factor = state["initial_lr"], float(state["factor"] or 1.0)

    def _lr_factor(self, optimizer: Optimizer | None) -> float:
        """Return the factor of the learning rate at this step, which schedulers of torch change."""
        if optimizer is None:
            raise InputError.at(Place(self._arm.arm), "the threshold follows the learning rate.", WITH_OPTIMIZER)
        group = optimizer.param_groups[0]
        if self._initial_lr is None:
            self._initial_lr = float(group.get("initial_lr", group["lr"]))
        factor = float(group["lr"]) / self._initial_lr if self._initial_lr else 1.0
        if not self._against:
            return factor
        self._factor = factor or self._factor
        return 1 / self._factor
