"""Loss and metrics of every lane on whole parts of the data, in eval mode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import vmap

from clipbench.compiler.native_program import TensorAxes
from clipbench.engine import generators
from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.lowering import Lowered
from clipbench.engine.model.lane_tensors import LaneTensors

# The number of examples in one pass: few, so that the activations of all lanes stay in the CPU cache.
PIECE = 128

Predict = Callable[[Tensor], Tensor]


class Evaluation:
    """Call it with the name of a part."""

    def __init__(self, tensors: LaneTensors) -> None:
        self._tensors = tensors
        self.refusals: list[str] = []
        self._predict = self._one_by_one if tensors.loop_reason else self._compiled()
        self._vmap_measures = not tensors.network.own_measures

    def __call__(self, name: str) -> Tensor:
        """Return the measures on a part: [measures, lanes]."""
        return self.with_outputs(name)[0]

    @torch.no_grad()
    def with_outputs(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the measures on a part, and the outputs: [lanes, examples, ...]."""
        part = self._tensors.parts[name]
        if part is None:
            raise LookupError(f"there are no {name} data")
        x, y = part
        outputs = self._predict(x)
        return self._measures(outputs, y), outputs

    def _measures(self, outputs: Tensor, y: Tensor) -> Tensor:
        network = self._tensors.network
        if self._vmap_measures:
            try:
                return torch.stack(vmap(network.measures, in_dims=(0, None))(outputs, y))
            except (RuntimeError, TypeError, ValueError):  # a metric may do what vmap does not support: `.item()`
                self._vmap_measures = False
        each = []
        for lane, output in enumerate(outputs):
            self._seed(lane)
            each.append(torch.stack([value.detach() for value in network.plain_measures(output, y.clone())]))
        return torch.stack(each, dim=1)

    def _compiled(self) -> Predict:
        """Compile one program for pieces of all parts, if the model has an output for each example."""
        tensors = self._tensors
        x = tensors.like[0]
        size = min(PIECE, max((len(part[0]) for part in tensors.parts.values() if part), default=1))
        piece = x[:1].expand(size, *x.shape[1:]).clone()
        weights = [*tensors.params.values(), *tensors.states.values()]
        with torch.no_grad():
            like = self._of_one(*(block[0] for block in weights), piece)
        has_outputs = like.ndim >= 1 and len(like) == size and tensors.network.has_data
        if not has_outputs or self._examples_interact(x[:size]):
            return self._whole
        outputs = like.new_empty(tensors.lanes, *like.shape)
        inputs = [*((block, TensorAxes()) for block in weights), (piece[None], TensorAxes())]
        run = Lowered(lambda *given: (self._of_one(*given),), inputs, [(outputs, TensorAxes())], range(tensors.lanes))
        self.refusals = run.refusals

        def predict(x: Tensor) -> Tensor:
            whole = outputs.new_empty(tensors.lanes, len(x), *outputs.shape[2:])
            for start in range(0, len(x), size):
                some = x[start : start + size]
                piece[: len(some)].copy_(some)
                run(0, range(tensors.lanes))
                whole[:, start : start + size].copy_(outputs[:, : len(some)])
            return whole

        return predict

    @torch.no_grad()
    def _examples_interact(self, x: Tensor) -> bool:
        """Whether the output for an example depends on the others, as with normalization by batch statistics."""
        network, half = self._tensors.network, -(-len(x) // 2)
        draw = torch.Generator(x.device).manual_seed(0)  # weights that are zero at the start could hide the dependence
        params = {
            name: p + 0.1 * torch.randn(p.shape, generator=draw, dtype=p.dtype, device=p.device)
            for name, p in network.module.named_parameters()
        }
        states = dict(network.module.named_buffers())
        apart, together = (network.predict(params, states, some)[:half] for some in (x[:half], x))
        scale = float(together.abs().max())
        return not torch.allclose(apart, together, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)

    def _whole(self, x: Tensor) -> Tensor:
        tensors = self._tensors
        outputs: Tensor = vmap(self._of_one)(
            *tensors.params.values(), *tensors.states.values(), x.expand(tensors.lanes, *x.shape)
        )
        return outputs

    def _of_one(self, *inputs: Tensor) -> Tensor:
        params, states, (x,) = self._tensors.named(inputs)
        with layers_for_many():
            return self._tensors.network.predict(params, states, x)

    def _one_by_one(self, x: Tensor) -> Tensor:
        return torch.stack([self._of_lane(lane, x) for lane in range(self._tensors.lanes)])

    def _of_lane(self, lane: int, x: Tensor) -> Tensor:
        self._seed(lane)  # some models draw in eval mode too
        return self._tensors.models[lane].output(x, on_copy=self._tensors.examination.evaluation_changes)

    def _seed(self, lane: int) -> None:
        generators.seed_all(generators.step_number(self._tensors.seeds[lane], self._tensors.step))
