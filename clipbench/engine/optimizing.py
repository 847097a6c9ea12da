"""torch.optim on slices of lanes: optimizers that work element by element train stacked models as they train one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from torch.optim import Optimizer

from clipbench import registry
from clipbench.engine.courses import follow
from clipbench.engine.workspace import Workspace
from clipbench.trial import Component, Trial


class Choosy(Protocol):
    """Lanes that may refuse a step, and which of them keep it."""

    lanes: slice

    @property
    def keep(self) -> Tensor: ...


class Chooses(Protocol):
    """The rules of a chunk, as far as optimizers look at them."""

    @property
    def choosy(self) -> Sequence[Choosy]: ...


class Optimizers:
    """One optimizer for each run of lanes that share its options, and one for each lane that may refuse a step."""

    def __init__(self, trials: Sequence[Trial], workspace: Workspace, clipping: Chooses, steps: int) -> None:
        self._together: list[Optimizer] = []
        self._alone: list[tuple[Choosy, list[Optimizer]]] = []
        self._of_lanes: list[Optimizer] = []
        choosy = {run.lanes.start: run for run in clipping.choosy}
        lane = 0
        while lane < len(trials):
            if lane in choosy:
                run = choosy[lane]
                lanes = range(run.lanes.start, run.lanes.stop)
                self._alone.append((run, [_optimizer(trials[k], workspace, slice(k, k + 1)) for k in lanes]))
                self._of_lanes += self._alone[-1][1]
                lane = run.lanes.stop
                continue
            limit = min((start for start in choosy if start > lane), default=len(trials))
            for lanes_alike in _alike(trials, lane, limit):
                self._together.append(_optimizer(trials[lanes_alike.start], workspace, lanes_alike))
                self._of_lanes += [self._together[-1]] * (lanes_alike.stop - lanes_alike.start)
            lane = limit
        self._rates = _Rates(trials[0].train.schedule, steps, self._all())

    def _all(self) -> list[Optimizer]:
        return [*self._together, *(optimizer for _, alone in self._alone for optimizer in alone)]

    def rates(self) -> list[float]:
        """The learning rate of every lane at the last step; 1 where an optimizer has none."""
        return [float(optimizer.param_groups[0].get("lr", 1.0)) for optimizer in self._of_lanes]

    def step(self) -> None:
        self._rates.advance()
        for optimizer in self._together:
            optimizer.step()
        for run, optimizers in self._alone:
            # A refused step leaves all of an optimizer's state as it was, its step counter too: so it is not called.
            for keep, optimizer in zip(run.keep.tolist(), optimizers, strict=True):
                if keep:
                    optimizer.step()


class _Rates:
    """The learning rates of optimizers that follow a schedule.

    It counts the steps of training: a step that an arm refuses counts too, so that arms of a seed have the same rates.
    """

    def __init__(self, schedule: Component | None, steps: int, optimizers: Sequence[Optimizer]) -> None:
        self._course = follow(schedule, steps)
        self._step, self._factor = 0, 1.0
        groups = [group for optimizer in optimizers for group in optimizer.param_groups] if schedule else []
        if not all("lr" in group for group in groups):
            raise ValueError("the optimizer has no `lr` that a schedule could change")
        self._groups = [(group, group["lr"]) for group in groups]

    def advance(self) -> None:
        if not self._groups:
            return
        factor = self._course(self._step)
        self._step += 1
        if factor != self._factor:
            self._factor = factor
            for group, lr in self._groups:
                group["lr"] = lr * factor


def _alike(trials: Sequence[Trial], first: int, last: int) -> list[slice]:
    """Lanes that one optimizer can serve."""
    slices = []
    for component, group in itertools.groupby(range(first, last), lambda lane: trials[lane].optimizer):
        lanes = list(group)
        if _elementwise(component):
            slices.append(slice(lanes[0], lanes[-1] + 1))
        else:
            slices += [slice(lane, lane + 1) for lane in lanes]
    return slices


def _elementwise(component: Component) -> bool:
    plugin = registry.of("optimizer", component)
    return bool(plugin.facts.get("elementwise"))


def _optimizer(trial: Trial, workspace: Workspace, lanes: slice) -> Optimizer:
    return make_optimizer(trial.optimizer, _tensors(workspace, lanes, _elementwise(trial.optimizer)))


def make_optimizer(component: Component, tensors: list[Tensor]) -> Optimizer:
    """An optimizer of a component, on tensors that may hold many lanes."""
    plugin = registry.of("optimizer", component)
    options = component.as_dict()
    if plugin.facts.get("elementwise") and tensors[0].device.type == "cpu":
        # Fused kernels round the ends of a tensor in another way, so a lane would depend on where it stands.
        options["foreach"] = False
    optimizer = plugin.function(tensors, **options)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"it must return a torch.optim.Optimizer, got {type(optimizer).__name__}")
    return optimizer


def _tensors(workspace: Workspace, lanes: slice, elementwise: bool) -> list[Tensor]:
    """What an optimizer is given; what the loss never reaches has no gradient, as in torch, and so is not moved."""
    params, grads, idle = workspace.params, workspace.grads, workspace.idle
    if elementwise and not idle and lanes == slice(0, params.lanes):
        return [_with_gradient(params.storage, grads.storage)]
    return [
        _with_gradient(
            _cut(params[name], lanes, elementwise), None if name in idle else _cut(grads[name], lanes, elementwise)
        )
        for name in params
    ]


def _cut(block: Tensor, lanes: slice, elementwise: bool) -> Tensor:
    """A lane of its own has the shape that the user's optimizer expects."""
    return block[lanes] if elementwise else block[lanes.start]


def _with_gradient(weights: Tensor, gradient: Tensor | None) -> Tensor:
    parameter = weights.detach()
    parameter.grad = gradient
    return parameter
