"""Loss and metrics of every lane on whole parts of the data, in eval mode."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import vmap

from clipbench.compiler.native_program import TensorAxes
from clipbench.core import generators
from clipbench.core.time_limit import TIME_LIMIT
from clipbench.engine.inputs.random_draws import Draw, DrawnNumbers
from clipbench.engine.lowering import Lowered
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.engine.model.loss_function import layers_given

# The number of examples in one pass: few, so that the activations of all lanes stay in the CPU cache.
PIECE = 128
PIECE_ELSEWHERE = 1024


class Evaluation:
    """Call it with the name of a part."""

    def __init__(self, tensors: LaneTensors) -> None:
        self._tensors = tensors
        self._programs: dict[int, _Program] = {}  # by the number of examples
        lengths = [len(part[0]) for part in tensors.parts.values() if part]
        most = PIECE if tensors.device.type == "cpu" else PIECE_ELSEWHERE
        # 0: the examples of a part go through the model together, and each part has a program of its own.
        self._piece = min(most, max(lengths, default=1)) if tensors.examination.by_example else 0
        self._vmap_measures = not tensors.network.own_measures

    @property
    def refusals(self) -> list[str]:
        return [refusal for program in self._programs.values() for refusal in program.run.refusals]

    def __call__(self, name: str) -> Tensor:
        """Return the measures on a part: [measures, lanes]."""
        return self.with_outputs(name)[0]

    @torch.no_grad()
    def with_outputs(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the measures on a part, and the outputs: [lanes, examples, ...]."""
        TIME_LIMIT.renew(self._tensors.lanes)
        part = self._tensors.parts[name]
        if part is None:
            raise LookupError(f"there are no {name} data")
        x, y = part
        outputs = self._one_by_one(x) if self._tensors.loop_reason else self._predict(name, x)
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
            self._seed(self._tensors.seeds.seeds[lane])
            each.append(torch.stack([value.detach() for value in network.plain_measures(output, y.clone())]))
        return torch.stack(each, dim=1)

    def prepare(self) -> None:
        """Compile what evaluations of all parts need."""
        for name, part in self._tensors.parts.items() if not self._tensors.loop_reason else ():
            if part is not None:
                self._program(name, part[0])

    def _predict(self, name: str, x: Tensor) -> Tensor:
        """Return the outputs of all lanes."""
        program = self._program(name, x)
        for number, seed in enumerate(self._tensors.seeds.different if program.drawn.draws else ()):
            self._seed(seed)
            program.drawn.draw(0, number)
        program.drawn.send()
        return program(x)

    def _program(self, name: str, x: Tensor) -> _Program:
        """Return the program for a part: the same one for pieces of all parts, where that is possible."""
        size = self._piece or len(x)
        if size not in self._programs:
            examples = self._tensors.like[0] if self._piece else x
            rows = torch.arange(size, device=x.device) % len(examples)
            self._programs[size] = _Program(self._tensors, examples[rows], self._tensors.draws_in_evaluation(name))
        return self._programs[size]

    def _one_by_one(self, x: Tensor) -> Tensor:
        return torch.stack([self._of_lane(lane, x) for lane in range(self._tensors.lanes)])

    def _of_lane(self, lane: int, x: Tensor) -> Tensor:
        tensors, model = self._tensors, self._tensors.models[lane]
        self._seed(tensors.seeds.seeds[lane])  # some models draw in eval mode too
        model.bind(tensors.evaluated.lane(lane))
        output = model.output(x, on_copy=tensors.examination.evaluation_changes)
        model.bind(tensors.params.lane(lane))
        return output

    def _seed(self, seed: int) -> None:
        generators.seed_all(generators.step_number(seed, self._tensors.step))


class _Program:
    """The outputs of all lanes for some examples; call it with as many examples, or fewer."""

    def __init__(self, tensors: LaneTensors, x: Tensor, draws: Sequence[Draw]) -> None:
        self._tensors, self._piece = tensors, x.clone()
        seeds = len(tensors.seeds.different)
        self.drawn = drawn = DrawnNumbers(draws, 1, seeds, 1, tensors.device)
        weights = [*tensors.evaluated.values(), *tensors.states.values()]
        numbers = [each[0, :, 0] for each in drawn.numbers]

        def of_one(*inputs: Tensor) -> tuple[Tensor]:
            params, states, (piece, *given) = tensors.named(inputs)
            with layers_given(drawn.draws, given):
                return (tensors.network.predict(params, states, piece),)

        with torch.no_grad():
            (like,) = of_one(*(block[0] for block in weights), self._piece, *(each[0] for each in numbers))
        self._outputs = like.new_empty(tensors.lanes, *like.shape)
        inputs = [
            *((block, TensorAxes()) for block in weights),
            (self._piece[None], TensorAxes()),
            *((each, TensorAxes(lane=None, seed=0)) for each in numbers),
        ]
        outputs = [(self._outputs, TensorAxes())]
        lanes, rounding = range(tensors.lanes), tensors.network.rounding
        self.run = Lowered(of_one, inputs, outputs, lanes, seeds=tensors.seeds, rounding=rounding)

    def __call__(self, x: Tensor) -> Tensor:
        """Return [lanes, examples, ...], or what the model has instead of an output for each example."""
        size = len(self._piece)
        if len(x) == size:
            self._piece.copy_(x)
            self.run(0, range(self._tensors.lanes))
            return self._outputs.clone()
        whole = self._outputs.new_empty(self._tensors.lanes, len(x), *self._outputs.shape[2:])
        for start in range(0, len(x), size):
            some = x[start : start + size]
            self._piece[: len(some)].copy_(some)
            self.run(0, range(self._tensors.lanes))
            whole[:, start : start + size].copy_(self._outputs[:, : len(some)])
        return whole
