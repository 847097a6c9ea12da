"""Loss and metrics of every lane on whole parts of the data, in eval mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import vmap

from clipbench.engine.compiler import program
from clipbench.engine.gradients.looped import noise
from clipbench.engine.layers.replace import layers_for_many

if TYPE_CHECKING:
    from clipbench.engine.gradients.workspace import Workspace

# Examples that go through the model at once: few, so that all lanes' activations stay in the cache.
PIECE = 128

Predict = Callable[[Tensor], Tensor]


class Evaluation:
    """Call it with the name of a part."""

    def __init__(self, workspace: Workspace) -> None:
        self._work = workspace
        self._predict = self._one_by_one if workspace.loop_reason else self._together()
        self._measure_at_once = True

    def __call__(self, name: str) -> Tensor:
        """[measures, lanes]"""
        return self.with_outputs(name)[0]

    @torch.no_grad()
    def with_outputs(self, name: str) -> tuple[Tensor, Tensor]:
        """The same, and the outputs that were measured: [lanes, examples, ...]."""
        part = self._work.parts[name]
        if part is None:
            raise LookupError(f"there are no {name} data")
        x, y = part
        outputs = self._predict(x)
        return self._measures(outputs, y), outputs

    def _measures(self, outputs: Tensor, y: Tensor) -> Tensor:
        network = self._work.network
        if self._measure_at_once:
            try:
                return torch.stack(vmap(network.measures, in_dims=(0, None))(outputs, y))
            except (RuntimeError, TypeError, ValueError):  # a metric may do what vmap cannot, such as `.item()`
                self._measure_at_once = False
        each = [torch.stack([value.detach() for value in network.measures(output, y)]) for output in outputs]
        return torch.stack(each, dim=1)

    def _together(self) -> Predict:
        """One program for pieces of all parts, where the model gives an output for each example."""
        work = self._work
        x = work.like[0]
        size = min(PIECE, max((len(part[0]) for part in work.parts.values() if part), default=1))
        piece = x[:1].expand(size, *x.shape[1:]).clone()
        inputs = [*work.params.values(), *work.states.values(), piece.expand(work.lanes, *piece.shape)]
        with torch.no_grad():
            like = self._stacked(*inputs)
        if like.ndim < 2 or like.shape[1] != size or not work.network.has_data or self._examples_meet(x[:size]):
            return self._whole
        outputs = torch.empty_like(like, memory_format=torch.contiguous_format)
        run = program.build(lambda *tensors: (self._stacked(*tensors),), inputs, [outputs])

        def predict(x: Tensor) -> Tensor:
            whole = outputs.new_empty(work.lanes, len(x), *outputs.shape[2:])
            for start in range(0, len(x), size):
                some = x[start : start + size]
                piece[: len(some)].copy_(some)
                run()
                whole[:, start : start + size].copy_(outputs[:, : len(some)])
            return whole

        return predict

    @torch.no_grad()
    def _examples_meet(self, x: Tensor) -> bool:
        """Whether an example's output depends on the others, as in normalization by the batch at hand."""
        network, half = self._work.network, -(-len(x) // 2)
        with noise(0, 0):  # no layer may hide the others by being zero at the start
            params = {name: p + 0.1 * torch.randn_like(p) for name, p in network.module.named_parameters()}
        states = dict(network.module.named_buffers())
        apart, together = (network.predict(params, states, some)[:half] for some in (x[:half], x))
        scale = float(together.abs().max())
        return not torch.allclose(apart, together, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)

    def _whole(self, x: Tensor) -> Tensor:
        work = self._work
        return self._stacked(*work.params.values(), *work.states.values(), x.expand(work.lanes, *x.shape))

    def _stacked(self, *tensors: Tensor) -> Tensor:
        params, states, (x,) = self._work.named(tensors)
        with layers_for_many():
            outputs: Tensor = vmap(self._work.network.predict)(params, states, x)
        return outputs

    def _one_by_one(self, x: Tensor) -> Tensor:
        work = self._work
        return torch.stack([self._one(lane, x) for lane in range(work.lanes)])

    def _one(self, lane: int, x: Tensor) -> Tensor:
        work = self._work
        states = {name: stack[lane] for name, stack in work.states.items()}
        with noise(work.seeds[lane], work.step):  # some models draw in eval mode too
            return work.network.predict(work.params.lane(lane), states, x)
