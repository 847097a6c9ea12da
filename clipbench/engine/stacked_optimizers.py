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
from torch import Tensor, nn
from torch.optim import Optimizer

from clipbench.core.trial import Component, Trial
from clipbench.engine import generators
from clipbench.engine.gradients.workspace import Workspace
from clipbench.engine.schedule_factor import factor_of_step
from clipbench.errors import Unsupported, blamed
from clipbench.plugins import registry
from clipbench.plugins.optimizers import make_optimizer
from clipbench.plugins.without_dynamo import avoid_dynamo

avoid_dynamo()

WHOLE = "all lanes"  # the name of the one tensor that holds all parameters of all lanes
REMEDY = "Choose an optimizer whose `step()` needs no closure and takes dense gradients."


class RefusingLanes(Protocol):
    """Lanes whose rule may refuse a step, and which of them take it."""

    lanes: slice

    @property
    def keep(self) -> Tensor: ...


class OptimizerGroup:
    """One optimizer and the lanes that it updates: one lane, or several where it works element by element."""

    def __init__(self, component: Component, workspace: Workspace, lanes: slice) -> None:
        self.name, self.is_elementwise = component.name, is_elementwise(component)
        vary = workspace.examination.gradients_vary
        # Parameters that the loss never reaches have no gradient, as in torch; then tensors differ.
        self._whole_storage = (
            self.is_elementwise and not (workspace.examination.idle or vary) and lanes == slice(0, workspace.lanes)
        )
        self._place(workspace, lanes)
        self._tensors = {name: nn.Parameter(weights, trained) for name, weights, trained in self._views()}
        self._set_gradients()
        self.optimizer = optimizer_of(component, list(self._tensors.items()))
        step = type(self.optimizer).step
        # torch's own without its hooks and its profiling, a third of the time of a step of SGD, and without the import
        # of torch._dynamo, which takes as long as that of torch.
        self._step = partial(inspect.unwrap(step), self.optimizer) if self.is_elementwise else self._own_step
        self.step = self._step_with_new_gradients if vary else self._step

    def move(self, workspace: Workspace, lanes: slice, before: Sequence[int]) -> None:
        """Continue with some of the lanes in another workspace; `before` are their numbers until now."""
        rows = [lane - self._lanes.start for lane in before]
        before_workspace = self._workspace
        self._place(workspace, lanes)
        for name, weights, _ in self._views():
            tensor = self._tensors[name]
            self._select_state(tensor, rows, before_workspace)
            tensor.grad = None
            tensor.data = weights
        self._set_gradients()

    def holds_views(self) -> bool:
        """Whether the optimizer holds views of weights or gradients other than the tensors it was given."""
        theirs = {tensors.storage.data_ptr() for tensors in (self._workspace.params, self._workspace.grads)}
        held = (list(self.optimizer.state.values()), {k: v for k, v in vars(self.optimizer).items() if k != "state"})
        given = {id(tensor) for tensor in self._tensors.values()}
        return any(
            tensor.untyped_storage().data_ptr() in theirs
            for tensor in _tensors_in(held, set())
            if id(tensor) not in given
        )

    def _own_step(self) -> None:
        """Let a user's optimizer step as in a plain loop: its random numbers are those of the seed and the step."""
        lane, workspace = self._lanes.start, self._workspace
        generators.seed_all(-1 - generators.step_number(workspace.seeds[lane], workspace.step))
        with torch.inference_mode(False), blamed("optimizer", f"{self.name} cannot take a step", REMEDY):
            self.optimizer.step()

    def _step_with_new_gradients(self) -> None:
        self._set_gradients()
        self._step()

    def _place(self, workspace: Workspace, lanes: slice) -> None:
        self._workspace, self._lanes = workspace, lanes
        # A single lane has the shape that a user's optimizer expects.
        index = lanes if self.is_elementwise else lanes.start
        self._gradients = {name: gradient[index] for name, gradient in workspace.grads.items()}

    def _views(self) -> Iterator[tuple[str, Tensor, bool]]:
        """Yield names, weights, and whether they are trained; a user's optimizer gets the frozen ones too."""
        if self._whole_storage:
            yield WHOLE, self._workspace.params.storage, True
        elif self.is_elementwise:
            yield from ((name, block[self._lanes], True) for name, block in self._workspace.params.items())
        else:
            yield from self._workspace.parameters(self._lanes.start)

    def _set_gradients(self) -> None:
        """Give the tensors their gradients; some parameters have none, at this step or ever."""
        if self._whole_storage:
            self._tensors[WHOLE].grad = self._workspace.grads.storage
            return
        without = self._workspace.without_gradient(self._lanes.start)
        for name, tensor in self._tensors.items():
            tensor.grad = None if name in without else self._gradients.get(name)

    def _select_state(self, tensor: Tensor, rows: Sequence[int], workspace: Workspace) -> None:
        """Reduce the state of each element to that of some lanes."""
        if not self.is_elementwise:
            return
        state = self.optimizer.state.get(tensor, {})
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == tensor.shape:
                state[name] = self._rows_of(value, rows, workspace)

    def _rows_of(self, value: Tensor, rows: Sequence[int], workspace: Workspace) -> Tensor:
        if not self._whole_storage:
            return value[rows]
        params = workspace.params
        blocks = torch.split(value, [params.lanes * size for size in params.sizes.values()])
        return torch.cat([block.view(params.lanes, -1)[rows].view(-1) for block in blocks])


class Optimizers:
    """The optimizers of all lanes: one for each run of lanes with equal options, one for each lane that may refuse."""

    def __init__(
        self, trials: Sequence[Trial], workspace: Workspace, refusing: Sequence[RefusingLanes], steps: int
    ) -> None:
        self._of_lanes: list[OptimizerGroup] = []
        alone = {lane for group in refusing for lane in range(group.lanes.start, group.lanes.stop)}
        alone |= set(range(len(trials))) if workspace.examination.gradients_vary else set()
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

    def classes(self) -> list[type]:
        return list({type(group.optimizer) for group in self._of_lanes})

    def own_lanes(self) -> list[int]:
        """Return the lanes whose optimizer is the user's own."""
        return [lane for lane, group in enumerate(self._of_lanes) if not group.is_elementwise]

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


def optimizer_of(component: Component, named: Sequence[tuple[str, nn.Parameter]]) -> Optimizer:
    """Return the optimizer of a component on parameters that may hold many lanes."""
    plugin = registry.of("optimizer", component)
    options = component.as_dict()
    if plugin.facts.get("elementwise") and named[0][1].device.type == "cpu":
        # Fused kernels round the last elements of a tensor differently: a lane would depend on its position.
        options["foreach"] = False
    with blamed("optimizer", f"{component.name} cannot be made"):
        optimizer = make_optimizer(plugin, named, options)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held for _, parameter in named if parameter.requires_grad):
        text = f"the groups of {component.name} contain none of the parameters that are trained."
        raise Unsupported(text, "Pass on the parameters that it is given, not copies of them.", "optimizer")
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


def _tensors_in(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Yield the tensors in nested lists and dictionaries."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ():
        yield from _tensors_in(part, seen)
