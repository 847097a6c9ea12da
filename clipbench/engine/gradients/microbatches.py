"""Gradients of the parts of batches, computed at once for all parts of all lanes, and how they come together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from clipbench.engine.compiler import program
from clipbench.engine.compiler.program import Program
from clipbench.engine.gradients.looped import noise, of_lane
from clipbench.engine.gradients.scope import Scope
from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.model.stacked import Blocks

if TYPE_CHECKING:
    from clipbench.engine.gradients.workspace import Workspace

Batch = tuple[Tensor, Tensor]


class Parts:
    """A loss and a gradient for each part of each lane; parts of a lane stand together, as lanes do."""

    def __init__(self, scope: Scope, like: Mapping[str, Tensor], loss: Tensor) -> None:
        self.scope = scope
        self.lanes = len(loss)
        self.count = self.lanes * scope.parts
        self.grads = Blocks(like, self.count, loss.dtype, loss.device)
        self.loss = loss.new_zeros(self.count)
        self._shares: dict[int, Tensor] = {}
        self._there: dict[int, Tensor] = {}

    def average(self, examples: int, grads: Blocks) -> None:
        """Bring the parts' gradients together."""
        shares = self.shares(examples).expand(self.lanes, 1, -1)
        for name, block in self.grads.items():
            parts = block.view(self.lanes, self.scope.parts, -1)
            torch.bmm(shares, parts, out=grads[name].view(self.lanes, 1, -1))  # a third of the time of a weighted sum

    def average_loss(self, examples: int, loss: Tensor) -> None:
        """The mean over the examples that there are."""
        shares = self.shares(examples)
        torch.sum(self.split(self.loss) * (shares / shares.sum()), dim=1, out=loss)

    def blocks(self, like: Blocks) -> Blocks:
        """Room for something of every part."""
        return Blocks(like.lane(0), self.count, self.loss.dtype, self.loss.device)

    def repeat(self, lanes: Blocks, into: Blocks) -> None:
        """Give every part what is its lane's."""
        for name, block in into.items():
            parts_of(block, self).copy_(lanes[name].unsqueeze(1).expand_as(parts_of(block, self)))

    def split(self, row: Tensor) -> Tensor:
        """[lanes, parts]"""
        return row.view(self.lanes, self.scope.parts)

    def shares(self, examples: int) -> Tensor:
        """What each part counts for in the average, [parts]."""
        if examples not in self._shares:
            self._shares[examples] = self.loss.new_tensor(self.scope.shares(examples))
        return self._shares[examples]

    def there(self, examples: int) -> Tensor:
        """1 for the parts that have examples, [parts]."""
        if examples not in self._there:
            self._there[examples] = self.loss.new_tensor([float(size > 0) for size in self.scope.sizes(examples)])
        return self._there[examples]


class PartsStep:
    """One program for the parts of each size; the others get no gradient."""

    def __init__(self, workspace: Workspace, parts: Parts, batch: Batch) -> None:
        self._work, self._parts = workspace, parts
        examples = batch[0].shape[1]
        self._programs = [self._program(batch, chosen, size) for chosen, size in parts.scope.alike(examples)]
        filled = min(examples, parts.scope.parts)
        blocks = [parts.loss, *parts.grads.values()]
        self._empty = [parts_of(block, parts)[:, filled:] for block in blocks if filled < parts.scope.parts]

    @property
    def path(self) -> str:
        return min((step.path for step in self._programs), key=("eager", "replay", "plan").index)

    def __call__(self) -> None:
        for step in self._programs:
            step()
        for block in self._empty:
            block.zero_()

    def _program(self, batch: Batch, chosen: slice, size: int) -> Program:
        work, parts = self._work, self._parts
        first, count = _first_example(parts.scope, batch[0].shape[1], chosen), chosen.stop - chosen.start
        stop = first + count * size
        cut = [t[:, first:stop].view(len(t), count, size, *t.shape[2:]) for t in batch]
        inputs = [*work.params.values(), *work.states.values(), *(t.expand(work.lanes, *t.shape[1:]) for t in cut)]
        outputs = [parts_of(block, parts)[:, chosen] for block in (parts.loss, *parts.grads.values())]
        return program.build(self._losses_and_gradients, inputs, outputs)

    def _losses_and_gradients(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        params, states, batch = self._work.named(tensors)
        each = vmap(grad_and_value(self._work.network.loss), in_dims=(None, None, 0, 0))
        with layers_for_many():
            grads, loss = vmap(each)(params, states, *batch)
        return (loss, *(grads[name] for name in self._work.params))


class LoopedPartsStep:
    """The same, one part after another."""

    path = "looped"

    def __init__(self, workspace: Workspace, parts: Parts, batch: Batch) -> None:
        self._work, self._parts, self._batch = workspace, parts, batch
        self._sizes = parts.scope.sizes(batch[0].shape[1])

    def __call__(self) -> None:
        work = self._work
        for lane in range(work.lanes):
            x, y = of_lane(self._batch, lane)
            with noise(work.seeds[lane], work.step):  # parts of a batch draw one after another
                for part, cut in enumerate(zip(torch.split(x, self._sizes), torch.split(y, self._sizes), strict=True)):
                    self._of_part(lane, part, cut)

    def _of_part(self, lane: int, part: int, batch: Batch) -> None:
        work, place = self._work, lane * self._parts.scope.parts + part
        params = {name: tensor.detach().requires_grad_() for name, tensor in work.params.lane(lane).items()}
        grads: Sequence[Tensor] = [torch.zeros_like(tensor) for tensor in params.values()]
        loss = self._parts.loss.new_zeros(())
        if len(batch[0]):
            states = {name: stack[lane] for name, stack in work.states.items()}
            loss = work.network.loss(params, states, *batch)
            grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True, materialize_grads=True)
        self._parts.loss[place] = loss.detach()
        self._parts.grads.set_lane(place, dict(zip(params, grads, strict=True)))


def parts_of(block: Tensor, parts: Parts) -> Tensor:
    """[lanes, parts, ...]"""
    return block.view(parts.lanes, parts.scope.parts, *block.shape[1:])


def _first_example(scope: Scope, examples: int, chosen: slice) -> int:
    return sum(scope.sizes(examples)[: chosen.start])
