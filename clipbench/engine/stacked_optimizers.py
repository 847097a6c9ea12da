"""The optimizers of a chunk: torch.optim's own, each on a group of lanes, and how their state moves with the lanes.

Optimizers that work element by element train stacked models as they train one.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from clipbench.core.trial import Component, Trial
from clipbench.engine.gradients.workspace import Workspace
from clipbench.engine.schedule_factor import factor_of_step
from clipbench.plugins import registry
from clipbench.plugins.without_dynamo import avoid_dynamo

avoid_dynamo()


class RefusingLanes(Protocol):
    """Lanes whose rule may refuse a step, and which of them take it."""

    lanes: slice

    @property
    def keep(self) -> Tensor: ...


class OptimizerGroup:
    """One optimizer and the lanes that it updates: one lane, or several where it works element by element."""

    def __init__(self, component: Component, workspace: Workspace, lanes: slice) -> None:
        self._elementwise = is_elementwise(component)
        # Parameters that the loss never reaches have no gradient, as in torch; then tensors differ.
        self._whole_storage = self._elementwise and not workspace.idle and lanes == slice(0, workspace.lanes)
        self._workspace, self._first = workspace, lanes.start
        self._tensors = [_with_gradient(*pair) for pair in self._views(workspace, lanes)]
        self.optimizer = make_optimizer(component, self._tensors)
        step = type(self.optimizer).step
        # torch's own without its hooks and its profiling, a third of the time of a step of SGD, and without the import
        # of torch._dynamo, which takes as long as that of torch.
        self.step = partial(inspect.unwrap(step) if self._elementwise else step, self.optimizer)

    def move(self, workspace: Workspace, lanes: slice, before: Sequence[int]) -> None:
        """Continue with some of the lanes in another workspace; `before` are their numbers until now."""
        rows = [lane - self._first for lane in before]
        for tensor, (weights, gradient) in zip(self._tensors, self._views(workspace, lanes), strict=True):
            self._select_state(tensor, rows)
            tensor.grad = None
            tensor.data = weights
            tensor.grad = gradient
        self._workspace, self._first = workspace, lanes.start

    def holds_views(self) -> bool:
        """Whether the optimizer holds views of weights or gradients other than the tensors it was given."""
        theirs = {tensors.storage.data_ptr() for tensors in (self._workspace.params, self._workspace.grads)}
        held = (list(self.optimizer.state.values()), {k: v for k, v in vars(self.optimizer).items() if k != "state"})
        given = {id(tensor) for tensor in self._tensors}
        return any(
            tensor.untyped_storage().data_ptr() in theirs
            for tensor in _tensors_in(held, set())
            if id(tensor) not in given
        )

    def _views(self, workspace: Workspace, lanes: slice) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield weights and gradients. A single lane has the shape that a user's optimizer expects."""
        if self._whole_storage:
            yield workspace.params.storage, workspace.grads.storage
            return
        index = lanes if self._elementwise else lanes.start
        for name, block in workspace.params.items():
            yield block[index], None if name in workspace.idle else workspace.grads[name][index]

    def _select_state(self, tensor: Tensor, rows: Sequence[int]) -> None:
        """Reduce the state of each element to that of some lanes."""
        if not self._elementwise:
            return
        state = self.optimizer.state.get(tensor, {})
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == tensor.shape:
                state[name] = self._rows_of(value, rows)

    def _rows_of(self, value: Tensor, rows: Sequence[int]) -> Tensor:
        if not self._whole_storage:
            return value[rows]
        params = self._workspace.params
        blocks = torch.split(value, [params.lanes * size for size in params.sizes.values()])
        return torch.cat([block.view(params.lanes, -1)[rows].view(-1) for block in blocks])


class Optimizers:
    """The optimizers of all lanes: one for each run of lanes with equal options, one for each lane that may refuse."""

    def __init__(
        self, trials: Sequence[Trial], workspace: Workspace, refusing: Sequence[RefusingLanes], steps: int
    ) -> None:
        self._of_lanes: list[OptimizerGroup] = []
        alone = {lane for group in refusing for lane in range(group.lanes.start, group.lanes.stop)}
        for is_alone, run in itertools.groupby(range(len(trials)), alone.__contains__):
            members = list(run)
            for lanes in _one_by_one(members) if is_alone else _alike(trials, members):
                group = OptimizerGroup(trials[lanes.start].optimizer, workspace, lanes)
                self._of_lanes += [group] * (lanes.stop - lanes.start)
        self._rates = _LearningRates(trials[0].train.schedule, steps, [group.optimizer for group in self._groups()])
        self._arrange(refusing)

    def _groups(self) -> list[OptimizerGroup]:
        return list(dict.fromkeys(self._of_lanes))

    def _arrange(self, refusing: Sequence[RefusingLanes]) -> None:
        """Separate the optimizers that always step from those whose lane may refuse."""
        self._conditional = [(group, self._of_lanes[group.lanes]) for group in refusing]
        conditional = {id(optimizer) for _, each in self._conditional for optimizer in each}
        self._always = [group for group in self._groups() if id(group) not in conditional]

    def rates(self) -> list[float]:
        """Return the learning rate of every lane at the last step; 1 where an optimizer has none."""
        return [float(group.optimizer.param_groups[0].get("lr", 1.0)) for group in self._of_lanes]

    def step(self) -> None:
        self._rates.advance()
        for optimizer in self._always:
            optimizer.step()
        for group, optimizers in self._conditional:
            # A refused step leaves the whole state of an optimizer as it was, its step counter too: it is not called.
            for keep, optimizer in zip(group.keep.tolist(), optimizers, strict=True):
                if keep:
                    optimizer.step()

    @property
    def can_move(self) -> bool:
        """Whether the weights can be moved: not if a user's optimizer holds views of them."""
        return not any(group.holds_views() for group in self._groups())

    def select(self, lanes: Sequence[int], workspace: Workspace, refusing: Sequence[RefusingLanes]) -> Optimizers:
        """Return the same optimizers for some of their lanes, whose weights are now in that workspace."""
        other = copy.copy(self)
        other._of_lanes = [self._of_lanes[lane] for lane in lanes]
        for group, run in itertools.groupby(range(len(lanes)), lambda k: other._of_lanes[k]):
            members = list(run)
            group.move(workspace, slice(members[0], members[-1] + 1), [lanes[k] for k in members])
        other._arrange(refusing)
        return other


class _LearningRates:
    """The learning rates of optimizers that follow a schedule.

    It counts all steps of training, refused steps too, so that arms of a seed have the same rates.
    """

    def __init__(self, schedule: Component | None, steps: int, optimizers: Sequence[Optimizer]) -> None:
        self._factor_of = factor_of_step(schedule, steps)
        self._step, self._factor = 0, 1.0
        groups = [group for optimizer in optimizers for group in optimizer.param_groups] if schedule else []
        if not all("lr" in group for group in groups):
            raise ValueError("the optimizer has no `lr` that a schedule could change")
        self._groups = [(group, group["lr"]) for group in groups]

    def advance(self) -> None:
        if not self._groups:
            return
        factor = self._factor_of(self._step)
        self._step += 1
        if factor != self._factor:
            self._factor = factor
            for group, lr in self._groups:
                group["lr"] = lr * factor


def is_elementwise(component: Component) -> bool:
    return bool(registry.of("optimizer", component).facts.get("elementwise"))


def make_optimizer(component: Component, tensors: list[Tensor]) -> Optimizer:
    """Return the optimizer of a component on tensors that may hold many lanes."""
    plugin = registry.of("optimizer", component)
    options = component.as_dict()
    if plugin.facts.get("elementwise") and tensors[0].device.type == "cpu":
        # Fused kernels round the last elements of a tensor differently: a lane would depend on its position.
        options["foreach"] = False
    optimizer = plugin.function(tensors, **options)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"it must return a torch.optim.Optimizer, got {type(optimizer).__name__}")
    return optimizer


def _alike(trials: Sequence[Trial], lanes: Sequence[int]) -> Iterator[slice]:
    """Yield runs of lanes that one optimizer can update."""
    for component, group in itertools.groupby(lanes, lambda lane: trials[lane].optimizer):
        members = list(group)
        if is_elementwise(component):
            yield slice(members[0], members[-1] + 1)
        else:
            yield from _one_by_one(members)


def _one_by_one(lanes: Sequence[int]) -> list[slice]:
    return [slice(lane, lane + 1) for lane in lanes]


def _with_gradient(weights: Tensor, gradient: Tensor | None) -> Tensor:
    parameter = weights.detach()
    parameter.grad = gradient
    return parameter


def _tensors_in(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Yield the tensors in nested lists and dictionaries."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ():
        yield from _tensors_in(part, seen)
