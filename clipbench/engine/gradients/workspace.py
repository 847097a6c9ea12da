"""A workspace: the tensors and compiled programs that train K lanes of one model; chunks of the same shape reuse it."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from torch import Tensor
from torch.func import grad_and_value, vmap

from clipbench.core.trial import Component, Training, Trial, Value
from clipbench.datasets import Dataset
from clipbench.engine.compiler import program
from clipbench.engine.compiler.invariance import InvarianceCheck
from clipbench.engine.gradients.looped import LoopedStep
from clipbench.engine.gradients.microbatches import (
    LoopedMicrobatchStep,
    Microbatches,
    MicrobatchStep,
    Scope,
    scope_of,
)
from clipbench.engine.inputs.batches import TrainingLength
from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.model.evaluation import Evaluation
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.engine.model.network import Batch
from clipbench.engine.model.stacked import StackedTensors


class GradientStep(Protocol):
    """A program that computes gradients; `path` says how it runs."""

    @property
    def path(self) -> str: ...

    def __call__(self) -> None: ...


@dataclass(frozen=True)
class WorkspaceShape:
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
    def of(cls, trials: Sequence[Trial], device: str) -> WorkspaceShape:
        first = trials[0]
        one_seed = len({trial.seed for trial in trials}) == 1
        (scope,) = {scope_of(trial.clip) for trial in trials}  # the arms of a chunk share their scope
        return cls(first.data, first.model, first.train, len(trials), one_seed, device, first.fingerprint, scope)


class Workspace(LaneTensors):
    """The tensors of K lanes, their batches, and the programs that compute gradients and measures."""

    def __init__(self, shape: WorkspaceShape, dataset: Dataset | None, loop_reason: str = "") -> None:
        """With a reason, lanes are trained one after another though the model may allow more."""
        super().__init__(shape.model, shape.train, dataset, shape.device)
        self.examination = replace(self.examination, loop_reason=self.examination.loop_reason or loop_reason)
        self._make(shape)

    def narrower(self, lanes: int) -> Workspace:
        """Return a workspace for fewer lanes, which shares what does not depend on their number."""
        other = copy.copy(self)
        other._make(replace(self.shape, lanes=lanes))
        return other

    def _make(self, shape: WorkspaceShape) -> None:
        start = time.perf_counter()
        self.shape = shape
        self._allocate(shape.lanes)
        scope = Scope.of(shape.scope, TrainingLength.of(shape.train, self.dataset).batch)
        self.microbatches = Microbatches(scope, self.params.lane(0), self.loss) if scope.parts else None
        self._steps: dict[int, tuple[Batch, GradientStep]] = {}
        self.evaluate = Evaluation(self)
        self.seconds = time.perf_counter() - start  # spent on making it and compiling its programs

    @property
    def path(self) -> str:
        """How gradients are computed: plan, replay, eager or looped."""
        order = ("looped", "eager", "replay", "plan")
        return min((step.path for _, step in self._steps.values()), key=order.index, default="")

    @cached_property
    def evaluation_is_invariant(self) -> bool:
        """Whether the measures of each lane are the same bits among fewer lanes."""
        with InvarianceCheck(self.lanes) as check:
            for name in self.parts:
                if self.parts[name] is not None:
                    self.evaluate(name)
        return not check.position_dependent

    @property
    def bytes(self) -> int:
        """The memory of weights and gradients; activations take about as much."""
        parts = self.microbatches.grads.storage.nbytes if self.microbatches else 0
        return self.params.storage.nbytes + self.grads.storage.nbytes + parts

    @property
    def raw_gradients(self) -> tuple[list[int], StackedTensors]:
        """The gradients that a step computes, and the seed of each: of the lanes, or of all their microbatches."""
        if self.microbatches is None:
            return self.seeds, self.grads
        return [seed for seed in self.seeds for _ in range(self.microbatches.scope.parts)], self.microbatches.grads

    def batch(self, size: int) -> Batch:
        """Return the tensors into which a batch of that size is gathered: [1 or lanes, size, ...]."""
        return self._compiled(size)[0]

    def compute_gradients(self, size: int) -> None:
        """Compute the loss and gradient of every lane on the last gathered batch of that size."""
        self.step += 1
        self._compiled(size)[1]()

    def _compiled(self, size: int) -> tuple[Batch, GradientStep]:
        if size not in self._steps:
            start = time.perf_counter()
            self._steps[size] = self._compile(size)
            self.seconds += time.perf_counter() - start
        return self._steps[size]

    def _compile(self, size: int) -> tuple[Batch, GradientStep]:
        batch = self._empty_batch(size)
        if self.microbatches:
            make = LoopedMicrobatchStep if self.loop_reason else MicrobatchStep
            return batch, make(self, self.microbatches, batch)
        if self.loop_reason:
            return batch, LoopedStep(self, batch)
        inputs = [*self.params.values(), *self.states.values(), *(t.expand(self.lanes, *t.shape[1:]) for t in batch)]
        return batch, program.build(self._loss_and_gradients, inputs, [self.loss, *self.grads.values()])

    def _loss_and_gradients(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        params, states, batch = self.named(tensors)
        with layers_for_many():
            grads, loss = vmap(grad_and_value(self.network.loss))(params, states, *batch)
        return (loss, *(grads[name] for name in self.params))

    def _empty_batch(self, size: int) -> Batch:
        copies = 1 if self.shape.one_seed else self.lanes
        x, y = self.like
        return x.new_zeros(copies, size, *x.shape[1:]), y.new_zeros(copies, size, *y.shape[1:])
