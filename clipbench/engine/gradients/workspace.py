"""A workspace: the tensors and compiled programs that train K lanes of one model; chunks of the same shape reuse it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from clipbench.core.trial import Component, Training, Trial, Value
from clipbench.datasets import Dataset, Stream
from clipbench.engine.compiler import program
from clipbench.engine.gradients.looped import LoopedGradients
from clipbench.engine.gradients.microbatches import Scope, scope_of
from clipbench.engine.inputs.batches import TrainingLength
from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.lowering import REFUSALS, check
from clipbench.engine.model.evaluation import Evaluation
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.engine.model.network import Batch
from clipbench.engine.native.native_program import NativeProgram, Run, TensorAxes
from clipbench.engine.step import STATISTICS

# Divergence is checked after so many steps, and at the end of an epoch; they are taken in one call.
MOST_SLOTS = 64
VANISHING = 1e-8  # an element of a gradient below is as good as 0
# The limit on the inputs of a block of steps.
MOST_BYTES = 2**23


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
    """The tensors of K lanes, the inputs of a block of steps, and the programs that compute gradients and measures."""

    def __init__(
        self,
        shape: WorkspaceShape,
        dataset: Dataset | None,
        loop_reason: str = "",
        slots: int = 0,
        keeps_clipped: bool = False,
    ) -> None:
        """With a reason, lanes are trained one after another though the model may allow more.

        `slots` limits the steps of a block, and `keeps_clipped` keeps the gradient that the optimizer got.
        """
        super().__init__(shape.model, shape.train, dataset, shape.device)
        self.examination = replace(self.examination, loop_reason=self.examination.loop_reason or loop_reason)
        self.shape, self.keeps_clipped = shape, keeps_clipped
        self.length = TrainingLength.of(shape.train, dataset)
        self.scope = Scope.of(shape.scope, self.length.batch)
        self._allocate(shape.lanes, max(self.scope.parts, 1))
        self.copies = 1 if shape.one_seed else shape.lanes
        self._allocate_slots(slots)
        self._programs: dict[int, Gradients] = {}
        self.groups: dict[tuple[Any, ...], Any] = {}  # of lanes: see `LaneGroup`
        self.evaluate = Evaluation(self)

    def _allocate_slots(self, most: int) -> None:
        """Allocate the inputs of a block of steps: [slots, copies, ...], and its statistics."""
        x, y = self.like
        noises = {"noise": self.shape.train.noise is not None, "privacy": bool(self.scope.parts)}
        elements = {name: self.params.size for name, there in noises.items() if there}
        is_stream = isinstance(self.dataset, Stream)
        examples = self.length.batch * (x[0].nbytes + y[0].nbytes) if is_stream else 0
        each = self.copies * (examples + sum(elements.values()) * self.loss.element_size())
        self.slots = max(1, min(most or MOST_SLOTS, self.length.epoch_steps, MOST_BYTES // max(each, 1)))
        new = partial(self.loss.new_zeros, self.slots, self.copies)
        self.noise_slots = {name: new(size) for name, size in elements.items()}
        self.example_slots: Batch | None = None
        self.index_slots: Tensor | None = None
        if is_stream:
            shape = (self.slots, self.copies, self.length.batch)
            self.example_slots = x.new_zeros(*shape, *x.shape[1:]), y.new_zeros(*shape, *y.shape[1:])
        elif not self.length.whole:
            self.index_slots = torch.zeros(
                self.slots, self.copies, self.length.batch, dtype=torch.long, device=self.device
            )
        self.rows = self.loss.new_zeros(self.slots, STATISTICS, self.lanes)
        self.part_weights = {name: self.loss.new_zeros(self.scope.parts) for name in ("shares", "filled")}

    @property
    def path(self) -> str:
        """How gradients are computed: native, plan, replay, eager or looped."""
        order = ("looped", "eager", "replay", "plan", "native")
        return min((each.path for each in self._programs.values()), key=order.index, default="")

    @property
    def note(self) -> str:
        """Why gradients are not computed by the fastest method; empty if they are."""
        return self.loop_reason or next((each.refusals[0] for each in self._programs.values() if each.refusals), "")

    @property
    def bytes(self) -> int:
        """The memory of weights and gradients; activations take about as much."""
        return self.params.storage.nbytes + sum(g.nbytes for g in self.grads.values())

    @cached_property
    def _epoch_program(self) -> tuple[program.Program, Tensor, Tensor]:
        """The program of `vanishing_and_norms`, and its results."""
        inputs = [self.part_weights["shares"].expand(self.lanes, -1), *self.grads.values(), *self.params.values()]
        vanishing, norms = self.loss.new_zeros(2, self.lanes)
        run = program.build(vmap(self._measured), inputs, [vanishing, norms], of_lane=self._measured)
        return run, vanishing, norms

    def _measured(self, shares: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        grads, weights = tensors[: len(self.params)], tensors[len(self.params) :]
        flat = torch.cat([(shares @ g.flatten(1)) if len(shares) else g.flatten() for g in grads])
        norms = [torch.linalg.vector_norm(w) for w in weights]
        return (flat.abs() < VANISHING).to(flat.dtype).mean(), torch.linalg.vector_norm(torch.stack(norms))

    def vanishing_and_norms(self) -> tuple[Tensor, Tensor]:
        """Return the share of each lane's raw gradient elements below 1e-8 at the last step, and the weights' norm."""
        run, vanishing, norms = self._epoch_program
        run()
        return vanishing, norms

    def gradients(self, size: int) -> Gradients:
        """Return the programs for batches of that size."""
        if size not in self._programs:
            self._programs[size] = Gradients(self, size)
        programs = self._programs[size]
        if self.scope.parts:
            sizes = self.scope.sizes(size)
            self.part_weights["shares"].copy_(self.loss.new_tensor(self.scope.shares(size)))
            self.part_weights["filled"].copy_(self.loss.new_tensor([float(each > 0) for each in sizes]))
        return programs


class Gradients:
    """The loss and the gradient of every part of a batch of one size, of every lane."""

    def __init__(self, workspace: Workspace, size: int) -> None:
        self._workspace, self._size = workspace, size
        self.native: list[NativeProgram] = []
        self.refusals: list[str] = []
        filled = min(size, workspace.scope.parts or 1)
        self._empty = [t[:, filled:] for t in (workspace.loss, *workspace.grads.values())]
        if workspace.loop_reason:
            self.path = "looped"
            self._batch = self._empty_batch()
            self._steps: list[Callable[[], None]] = [
                LoopedGradients(workspace, self._batch, workspace.scope.sizes(size))
            ]
            return
        if workspace.device.type == "cpu":
            try:
                self.native = [self._compiled(chosen, each) for chosen, each in workspace.scope.alike(size)]
                self.path, self._run = "native", Run(self.native)
                return
            except REFUSALS as refusal:
                self.native, self.refusals = [], [f"native: {refusal}"]
        self._batch = self._empty_batch()
        programs = [self._mapped(chosen, each) for chosen, each in workspace.scope.alike(size)]
        self.path = min((each.path for each in programs), key=("eager", "replay", "plan").index)
        self._steps = list(programs)
        self.refusals += programs[0].refusals

    def __call__(self, slot: int, read: Callable[[int, Batch], None], alive: Sequence[int]) -> None:
        """Compute them for a slot of the block, at least of these lanes; `read` copies its batch."""
        self.clear_empty()
        if self.native:
            self._run(alive, slot, 1)
            return
        read(slot, self._batch)
        for step in self._steps:
            step()

    def clear_empty(self) -> None:
        """Set the gradients of parts without examples to 0."""
        for block in self._empty:
            if block.numel():
                block.zero_()

    def _compiled(self, chosen: slice, size: int) -> NativeProgram:
        """Return the kernels for the parts of one size."""
        workspace, names = self._workspace, len(self._workspace.params) + len(self._workspace.states)
        first, count = sum(workspace.scope.sizes(self._size)[: chosen.start]), chosen.stop - chosen.start
        weights = [(t, TensorAxes()) for t in (*workspace.params.values(), *workspace.states.values())]

        def cut(slots: Tensor) -> tuple[Tensor, TensorAxes]:
            """[slots, copies, batch, ...] -> [slots, copies, parts, size, ...]"""
            parts = torch.unflatten(slots[:, :, first : first + count * size], 2, (count, size))
            return parts, TensorAxes(lane=1, part=2, step=0)

        if workspace.index_slots is not None:
            inputs = [*weights, cut(workspace.index_slots)]
        elif workspace.example_slots is not None:
            inputs = [*weights, *map(cut, workspace.example_slots)]
        elif workspace.scope.parts:
            whole = [t[None, None] for t in workspace.like]
            inputs = [*weights, *map(cut, whole)]
        else:
            inputs = weights
        outputs = [(t[:, chosen], TensorAxes(part=1)) for t in (workspace.loss, *workspace.grads.values())]

        def of_part(*tensors: Tensor) -> tuple[Tensor, ...]:
            given = tensors[names:]
            if workspace.index_slots is not None:
                given = tuple(table.index_select(0, given[0]) for table in workspace.like)
            return workspace.loss_and_gradient(*tensors[:names], *(given or workspace.like))

        native = NativeProgram(of_part, inputs, outputs, count)
        check(native, of_part, inputs, outputs, workspace.lanes)
        return native

    def _mapped(self, chosen: slice, size: int) -> program.Program:
        """Return the same function mapped over lanes and parts."""
        workspace, lanes = self._workspace, self._workspace.lanes
        first, count = sum(workspace.scope.sizes(self._size)[: chosen.start]), chosen.stop - chosen.start
        batch = [t.expand(lanes, *t.shape[1:]) for t in self._batch]
        outputs = [workspace.loss, *workspace.grads.values()]
        if workspace.scope.parts:
            batch = [torch.unflatten(t[:, first : first + count * size], 1, (count, size)) for t in batch]
            outputs = [t[:, chosen] for t in outputs]
        else:
            outputs = [t[:, 0] for t in outputs]
        inputs = [*workspace.params.values(), *workspace.states.values(), *batch]
        return program.build(self._losses_and_gradients, inputs, outputs)

    def _losses_and_gradients(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        workspace = self._workspace
        params, states, batch = workspace.named(tensors)
        each = grad_and_value(workspace.network.loss)
        if workspace.scope.parts:
            each = vmap(each, in_dims=(None, None, 0, 0))
        with layers_for_many():
            grads, loss = vmap(each)(params, states, *batch)
        return (loss, *(grads[name] for name in workspace.params))

    def _empty_batch(self) -> Batch:
        workspace = self._workspace
        x, y = workspace.like
        shape = (workspace.copies, self._size)
        return x.new_zeros(*shape, *x.shape[1:]), y.new_zeros(*shape, *y.shape[1:])
