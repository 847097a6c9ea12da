"""The tensors and programs that train K lanes of one model on one data set; every chunk of that shape reuses them."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap

from clipbench.core.trial import Component, Training, Trial, Value
from clipbench.datasets import Dataset, Stream
from clipbench.engine.compiler import program
from clipbench.engine.compiler.invariance import Watch
from clipbench.engine.gradients import looped
from clipbench.engine.gradients.microbatches import LoopedPartsStep, Parts, PartsStep
from clipbench.engine.gradients.scope import Scope, scope_of
from clipbench.engine.inputs.batches import Schedule
from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.model.evaluation import Evaluation
from clipbench.engine.model.functional import Network, build_model, idle_parameters
from clipbench.engine.model.stacked import Blocks

Batch = tuple[Tensor, Tensor]


class Step(Protocol):
    """One run of a program; `path` says how it runs."""

    @property
    def path(self) -> str: ...

    def __call__(self) -> None: ...


@dataclass(frozen=True)
class Shape:
    """What chunks must have in common to be trained in the same workspace."""

    data: Component | None
    model: Component
    train: Training
    lanes: int
    one_seed: bool  # all lanes see the same batches
    device: str
    fingerprint: str = ""  # of the data's content
    scope: Value = "batch"

    @classmethod
    def of(cls, trials: Sequence[Trial], device: str) -> Shape:
        first = trials[0]
        one_seed = len({trial.seed for trial in trials}) == 1
        (scope,) = {scope_of(trial.clip) for trial in trials}  # arms of others are no chunk of this one
        return cls(first.data, first.model, first.train, len(trials), one_seed, device, first.fingerprint, scope)


class Workspace:
    """Stacked weights and gradients of K lanes, their batches, and the programs that fill them."""

    def __init__(self, shape: Shape, dataset: Dataset | None) -> None:
        self.dataset = dataset
        self.device = torch.device(shape.device)
        module = build_model(shape.model, dataset, seed=0)
        self.network = Network(module, shape.train, has_data=dataset is not None)
        module.to(self.device, self.network.dtype)
        self.like = self._part("train") or self._nothing()  # what is trained on; of a stream, what it looks like
        self.parts = {"train": self.like, "val": self._part("val"), "test": self._part("test")}
        if isinstance(dataset, Stream):
            self.parts["train"] = None  # nothing that it trained on is there to be measured
        # Noise on the gradient reaches everything.
        self.idle = frozenset() if shape.train.noise else idle_parameters(self.network, *self._example())
        self.loop_reason = looped.reason_to_loop(self.network, self._example())
        self._make_room(shape)

    def narrower(self, lanes: int) -> Workspace:
        """One for fewer lanes, which shares what does not depend on their number."""
        other = copy.copy(self)
        other._make_room(replace(self.shape, lanes=lanes))
        return other

    def _make_room(self, shape: Shape) -> None:
        start = time.perf_counter()
        self.shape, self.lanes = shape, shape.lanes
        module = self.network.module
        trained = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
        self.params = Blocks(trained, self.lanes, self.network.dtype, self.device)
        self.grads = Blocks(trained, self.lanes, self.network.dtype, self.device)
        fixed = {name: tensor for name, tensor in module.named_parameters() if not tensor.requires_grad}
        self.states = {name: _stacked(tensor, self.lanes) for name, tensor in [*fixed.items(), *module.named_buffers()]}
        self.loss = torch.zeros(self.lanes, dtype=self.network.dtype, device=self.device)
        scope = Scope.of(shape.scope, Schedule.of(shape.train, self.dataset).batch)
        self.split = Parts(scope, trained, self.loss) if scope.parts else None
        self.seeds: list[int] = [0] * self.lanes
        self.step = 0  # of the training under way; the looped path draws its noise from it
        self._steps: dict[int, tuple[Batch, Step]] = {}
        self.evaluate = Evaluation(self)
        self.seconds = time.perf_counter() - start  # that it took to make it and its programs

    @property
    def path(self) -> str:
        """How gradients are computed: plan, replay, eager or looped."""
        order = ("looped", "eager", "replay", "plan")
        return min((step.path for _, step in self._steps.values()), key=order.index, default="none")

    @cached_property
    def evaluates_steadily(self) -> bool:
        """Whether each lane's measures are the same bits among fewer lanes."""
        with Watch(self.lanes) as watch:
            for name in self.parts:
                if self.parts[name] is not None:
                    self.evaluate(name)
        return not watch.unsteady

    @property
    def bytes(self) -> int:
        """Of weights and gradients; activations come to about as much."""
        split = self.split.grads.storage.nbytes if self.split else 0
        return self.params.storage.nbytes + self.grads.storage.nbytes + split

    @property
    def raw(self) -> tuple[list[int], Blocks]:
        """The gradients that a step leaves, and the seed of each: of the lanes, or of all their parts."""
        if self.split is None:
            return self.seeds, self.grads
        return [seed for seed in self.seeds for _ in range(self.split.scope.parts)], self.split.grads

    def start(self, modules: Sequence[nn.Module], seeds: Sequence[int]) -> None:
        """Give every lane its initial state."""
        self.seeds = list(seeds)
        self.step = 0
        for lane, module in enumerate(modules):
            tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            self.params.set_lane(lane, {name: tensors[name].detach() for name in self.params})
            for name, stack in self.states.items():
                stack[lane].copy_(tensors[name].detach())

    def take(self, other: Workspace, lanes: Sequence[int]) -> None:
        """Go on with lanes of another workspace."""
        self.seeds = [other.seeds[lane] for lane in lanes]
        self.step = other.step
        for mine, theirs in _held(self, other):
            mine.copy_(theirs[lanes])

    def put(self, other: Workspace, lanes: Sequence[int]) -> None:
        """Bring lanes of another workspace back to their places here."""
        self.step = other.step
        for mine, theirs in _held(self, other):
            mine[lanes] = theirs

    def batch(self, size: int) -> Batch:
        """The tensors into which a batch of that size is gathered: [1 or lanes, size, ...]."""
        return self._compiled(size)[0]

    def gradients(self, size: int) -> None:
        """Every lane's loss and gradient on the batch of that size that was gathered last."""
        self.step += 1
        self._compiled(size)[1]()

    def _compiled(self, size: int) -> tuple[Batch, Step]:
        if size not in self._steps:
            start = time.perf_counter()
            self._steps[size] = self._compile_step(size)
            self.seconds += time.perf_counter() - start
        return self._steps[size]

    def _compile_step(self, size: int) -> tuple[Batch, Step]:
        batch = self._empty_batch(size)
        if self.split:
            return batch, (LoopedPartsStep if self.loop_reason else PartsStep)(self, self.split, batch)
        if self.loop_reason:
            return batch, looped.LoopedStep(self, batch)
        inputs = [*self.params.values(), *self.states.values(), *(self._over_lanes(t) for t in batch)]
        return batch, program.build(self._loss_and_gradients, inputs, [self.loss, *self.grads.values()])

    def _loss_and_gradients(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        params, states, batch = self.named(tensors)
        with layers_for_many():
            grads, loss = vmap(grad_and_value(self.network.loss))(params, states, *batch)
        return (loss, *(grads[name] for name in self.params))

    def named(self, tensors: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], Sequence[Tensor]]:
        """A program's inputs by their names: parameters, states, and the rest."""
        params = dict(zip(self.params, tensors, strict=False))
        states = dict(zip(self.states, tensors[len(params) :], strict=False))
        return params, states, tensors[len(params) + len(states) :]

    def _part(self, name: str) -> Batch | None:
        arrays = getattr(self.dataset, name, None)
        return None if arrays is None else (self._tensor(arrays[0]), self._tensor(arrays[1]))

    def _nothing(self) -> Batch:
        """An objective without data: one example that nobody looks at."""
        nothing = torch.zeros(1, device=self.device, dtype=self.network.dtype)
        return nothing, nothing

    def _tensor(self, array: object) -> Tensor:
        tensor = torch.as_tensor(array)
        return tensor.to(self.device, self.network.dtype if tensor.is_floating_point() else tensor.dtype)

    def _empty_batch(self, size: int) -> Batch:
        copies = 1 if self.shape.one_seed else self.lanes
        x, y = self.like
        return x.new_zeros(copies, size, *x.shape[1:]), y.new_zeros(copies, size, *y.shape[1:])

    def _over_lanes(self, tensor: Tensor) -> Tensor:
        return tensor.expand(self.lanes, *tensor.shape[1:])

    def _example(self) -> Batch:
        x, y = self.like
        return x[:4], y[:4]


def _held(one: Workspace, other: Workspace) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights and buffers of both, [lanes, ...]."""
    for name, block in one.params.items():
        yield block, other.params[name]
    for name, stack in one.states.items():
        yield stack, other.states[name]


def _stacked(tensor: Tensor, lanes: int) -> Tensor:
    return tensor.detach().expand(lanes, *tensor.shape).clone()
