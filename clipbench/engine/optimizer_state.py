"""An optimizer with the weights that it moves: of one lane, or of a run of lanes where it works element by element."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from clipbench.core.trial import Component
from clipbench.engine.gradients.workspace import Workspace
from clipbench.plugins import registry


class Served:
    """Lanes, and the optimizer that serves them."""

    def __init__(self, component: Component, workspace: Workspace, lanes: slice) -> None:
        self._elementwise = is_elementwise(component)
        # What the loss never reaches has no gradient, as in torch: then tensors are not alike.
        self._at_once = self._elementwise and not workspace.idle and lanes == slice(0, workspace.lanes)
        self._workspace, self._first = workspace, lanes.start
        self._tensors = [_with_gradient(*pair) for pair in self._lying(workspace, lanes)]
        self.optimizer = make_optimizer(component, self._tensors)

    def move(self, workspace: Workspace, lanes: slice, before: Sequence[int]) -> None:
        """Go on with some of its lanes, where they lie now; `before` says which lanes they were."""
        rows = [lane - self._first for lane in before]
        for tensor, (weights, gradient) in zip(self._tensors, self._lying(workspace, lanes), strict=True):
            self._take_state(tensor, rows)
            tensor.grad = None
            tensor.data = weights
            tensor.grad = gradient
        self._workspace, self._first = workspace, lanes.start

    def holds_views(self) -> bool:
        """Whether it keeps views of weights or gradients beside those that it was given."""
        theirs = {blocks.storage.data_ptr() for blocks in (self._workspace.params, self._workspace.grads)}
        kept = (list(self.optimizer.state.values()), {k: v for k, v in vars(self.optimizer).items() if k != "state"})
        given = {id(tensor) for tensor in self._tensors}
        return any(
            tensor.untyped_storage().data_ptr() in theirs for tensor in _held(kept, set()) if id(tensor) not in given
        )

    def _lying(self, workspace: Workspace, lanes: slice) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Where weights and gradients lie. A lane of its own has the shape that a user's optimizer expects."""
        if self._at_once:
            yield workspace.params.storage, workspace.grads.storage
            return
        index = lanes if self._elementwise else lanes.start
        for name, block in workspace.params.items():
            yield block[index], None if name in workspace.idle else workspace.grads[name][index]

    def _take_state(self, tensor: Tensor, rows: Sequence[int]) -> None:
        """Keep of what is remembered of each element that of some lanes."""
        if not self._elementwise:
            return
        state = self.optimizer.state.get(tensor, {})
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == tensor.shape:
                state[name] = self._of_rows(value, rows)

    def _of_rows(self, value: Tensor, rows: Sequence[int]) -> Tensor:
        if not self._at_once:
            return value[rows]
        params = self._workspace.params
        blocks = torch.split(value, [params.lanes * size for size in params.sizes.values()])
        return torch.cat([block.view(params.lanes, -1)[rows].view(-1) for block in blocks])


def is_elementwise(component: Component) -> bool:
    return bool(registry.of("optimizer", component).facts.get("elementwise"))


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


def _with_gradient(weights: Tensor, gradient: Tensor | None) -> Tensor:
    parameter = weights.detach()
    parameter.grad = gradient
    return parameter


def _held(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """The tensors in a nest of lists and dictionaries."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ():
        yield from _held(part, seen)
