"""Microbatches: how a batch is cut into parts that are clipped separately, and the gradients of these parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from clipbench.core.trial import Component, Value
from clipbench.engine import generators
from clipbench.engine.compiler import program
from clipbench.engine.compiler.program import Program
from clipbench.engine.gradients.looped import batch_of_lane
from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.engine.model.network import Batch
from clipbench.engine.model.stacked import StackedTensors

BATCH = "batch"


@dataclass(frozen=True)
class Scope:
    """The number of parts a batch is cut into; parts of one example are divided by the expected batch size."""

    parts: int = 0  # 0: the batch is not cut
    expected: int = 0  # 0: the average is over the examples of the batch

    @classmethod
    def of(cls, scope: Value, batch: int) -> Scope:
        if isinstance(scope, Component):
            return cls(int(scope["n"]))  # type: ignore[arg-type]
        return cls(batch, batch) if scope == "sample" else cls()

    def sizes(self, examples: int) -> list[int]:
        """Return the examples of each part: as equal as possible, larger parts first, empty ones last."""
        size, more = divmod(examples, self.parts)
        return [size + 1] * more + [size] * (self.parts - more)

    def alike(self, examples: int) -> Iterator[tuple[slice, int]]:
        """Yield runs of parts of one size above 0, and that size."""
        size, more = divmod(examples, self.parts)
        if more:
            yield slice(0, more), size + 1
        if size:
            yield slice(more, self.parts), size

    def shares(self, examples: int) -> list[float]:
        """Return the weight of each part's mean in the average."""
        return [size / (self.expected or examples) for size in self.sizes(examples)]


def scope_of(clip: Component) -> Value:
    """Return the scope of an arm: batch, sample, or a component `shards`."""
    return clip.as_dict().get("scope") or BATCH


class Microbatches:
    """A loss and a gradient for each part of each lane; the parts of a lane are consecutive."""

    def __init__(self, scope: Scope, like: Mapping[str, Tensor], loss: Tensor) -> None:
        self.scope = scope
        self.lanes = len(loss)
        self.count = self.lanes * scope.parts
        self.grads = StackedTensors(like, self.count, loss.dtype, loss.device)
        self.loss = loss.new_zeros(self.count)
        self._shares: dict[int, Tensor] = {}
        self._filled: dict[int, Tensor] = {}

    def average(self, examples: int, grads: StackedTensors) -> None:
        """Write the average gradient of each lane's parts into `grads`."""
        shares = self.shares(examples).expand(self.lanes, 1, -1)
        for name, block in self.grads.items():
            parts = block.view(self.lanes, self.scope.parts, -1)
            torch.bmm(shares, parts, out=grads[name].view(self.lanes, 1, -1))  # a third of the time of a weighted sum

    def average_loss(self, examples: int, loss: Tensor) -> None:
        """Write the mean loss over the examples of the batch into `loss`."""
        shares = self.shares(examples)
        torch.sum(self.split(self.loss) * (shares / shares.sum()), dim=1, out=loss)

    def empty_like(self, like: StackedTensors) -> StackedTensors:
        """Return tensors with room for every part."""
        return StackedTensors(like.lane(0), self.count, self.loss.dtype, self.loss.device)

    def repeat(self, lanes: StackedTensors, into: StackedTensors) -> None:
        """Copy the tensors of each lane to all of its parts."""
        for name, block in into.items():
            by_part(block, self).copy_(lanes[name].unsqueeze(1).expand_as(by_part(block, self)))

    def split(self, row: Tensor) -> Tensor:
        """Return a view [lanes, parts]."""
        return row.view(self.lanes, self.scope.parts)

    def shares(self, examples: int) -> Tensor:
        """Return the weight of each part in the average, [parts]."""
        if examples not in self._shares:
            self._shares[examples] = self.loss.new_tensor(self.scope.shares(examples))
        return self._shares[examples]

    def filled(self, examples: int) -> Tensor:
        """Return 1 for the parts that have examples and 0 for the others, [parts]."""
        if examples not in self._filled:
            self._filled[examples] = self.loss.new_tensor([float(size > 0) for size in self.scope.sizes(examples)])
        return self._filled[examples]


class MicrobatchStep:
    """One program for the parts of each size; parts without examples get no gradient."""

    def __init__(self, tensors: LaneTensors, parts: Microbatches, batch: Batch) -> None:
        self._tensors, self._parts = tensors, parts
        examples = batch[0].shape[1]
        self._programs = [self._program(batch, chosen, size) for chosen, size in parts.scope.alike(examples)]
        filled = min(examples, parts.scope.parts)
        blocks = [parts.loss, *parts.grads.values()]
        self._empty = [by_part(block, parts)[:, filled:] for block in blocks if filled < parts.scope.parts]

    @property
    def path(self) -> str:
        return min((step.path for step in self._programs), key=("eager", "replay", "plan").index)

    def __call__(self) -> None:
        for step in self._programs:
            step()
        for block in self._empty:
            block.zero_()

    def _program(self, batch: Batch, chosen: slice, size: int) -> Program:
        tensors, parts = self._tensors, self._parts
        first, count = sum(parts.scope.sizes(batch[0].shape[1])[: chosen.start]), chosen.stop - chosen.start
        stop = first + count * size
        cut = [t[:, first:stop].view(len(t), count, size, *t.shape[2:]) for t in batch]
        lanes = tensors.lanes
        inputs = [*tensors.params.values(), *tensors.states.values(), *(t.expand(lanes, *t.shape[1:]) for t in cut)]
        outputs = [by_part(block, parts)[:, chosen] for block in (parts.loss, *parts.grads.values())]
        return program.build(self._losses_and_gradients, inputs, outputs)

    def _losses_and_gradients(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        params, states, batch = self._tensors.named(inputs)
        each = vmap(grad_and_value(self._tensors.network.loss), in_dims=(None, None, 0, 0))
        with layers_for_many():
            grads, loss = vmap(each)(params, states, *batch)
        return (loss, *(grads[name] for name in self._tensors.params))


class LoopedMicrobatchStep:
    """The same, one part after another."""

    path = "looped"

    def __init__(self, tensors: LaneTensors, parts: Microbatches, batch: Batch) -> None:
        self._tensors, self._parts, self._batch = tensors, parts, batch
        self._sizes = parts.scope.sizes(batch[0].shape[1])

    def __call__(self) -> None:
        tensors, parts = self._tensors, self._parts
        for lane, model in enumerate(tensors.models):
            if model.stopped:
                continue
            generators.seed_all(generators.step_number(tensors.seeds[lane], tensors.step))  # once for all parts
            absent = []
            x, y = batch_of_lane(self._batch, lane)
            for part, cut in enumerate(zip(torch.split(x, self._sizes), torch.split(y, self._sizes), strict=True)):
                position = lane * parts.scope.parts + part
                if len(cut[0]):
                    parts.loss[position], grads = model.loss_and_gradients(cut)
                    absent.append(model.without_gradient)
                else:
                    parts.loss[position] = 0.0
                    grads = {name: torch.zeros_like(tensor) for name, tensor in tensors.params.lane(lane).items()}
                parts.grads.set_lane(position, grads)
            model.without_gradient = frozenset.intersection(*absent)


def by_part(block: Tensor, parts: Microbatches) -> Tensor:
    """Return a view [lanes, parts, ...]."""
    return block.view(parts.lanes, parts.scope.parts, *block.shape[1:])
