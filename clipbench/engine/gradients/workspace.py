"""A workspace: the tensors and compiled programs that train K lanes of one model; chunks of the same shape reuse it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from clipbench.compiler.native_program import NativeProgram, TensorAxes
from clipbench.core import generators
from clipbench.core.trial import Component, Training, Trial, Value
from clipbench.datasets import Dataset
from clipbench.engine.device_steps import DeviceSteps
from clipbench.engine.gradients.looped import LoopedGradients
from clipbench.engine.gradients.microbatches import Scope, scope_of
from clipbench.engine.inputs.batches import BatchSource, TrainingLength
from clipbench.engine.inputs.random_draws import DrawnNumbers
from clipbench.engine.lowering import Lowered, slowest
from clipbench.engine.model.evaluation import Evaluation
from clipbench.engine.model.lane_tensors import LaneTensors
from clipbench.engine.model.loss_function import LossFunction
from clipbench.engine.model.network import Batch
from clipbench.engine.step import STATISTICS

# Divergence is checked after so many steps, and at the end of an epoch; they are taken in one call.
MOST_SLOTS = 64
VANISHING = 1e-8  # an element of a gradient below is as good as 0
# The limit on the inputs of a block of steps.
MOST_BYTES = 2**23
# On other devices the host is asked once an epoch, if its inputs fit.
MOST_SLOTS_ELSEWHERE, MOST_BYTES_ELSEWHERE = 2**12, 2**28


@dataclass(frozen=True)
class WorkspaceShape:
    """What chunks must have in common to be trained in the same workspace."""

    data: Component | None
    model: Component
    train: Training
    lanes: int
    seeds: int  # different ones
    device: str
    fingerprint: str = ""  # of the data's content
    scope: Value = "batch"
    loop_reason: str = ""  # why lanes are trained one after another though the model may allow more

    @classmethod
    def of(cls, trials: Sequence[Trial], device: str, loop_reason: str = "") -> WorkspaceShape:
        first = trials[0]
        seeds = len({trial.seed for trial in trials})
        (scope,) = {scope_of(trial.clip) for trial in trials}  # the arms of a chunk share their scope
        alike = first.data, first.model, first.train, len(trials), seeds, device, first.fingerprint
        return cls(*alike, scope, loop_reason)


class Workspace(LaneTensors):
    """The tensors of K lanes, the inputs of a block of steps, and the programs that compute gradients and measures."""

    def __init__(
        self, shape: WorkspaceShape, dataset: Dataset | None, slots: int = 0, keeps_clipped: bool = False
    ) -> None:
        """`slots` limits the steps of a block, and `keeps_clipped` keeps the gradient that the optimizer got."""
        super().__init__(shape.model, shape.train, dataset, shape.device)
        self.examination = replace(self.examination, loop_reason=self.examination.loop_reason or shape.loop_reason)
        self.shape, self.keeps_clipped = shape, keeps_clipped
        self.length = TrainingLength.of(shape.train, dataset)
        self.scope = Scope.of(shape.scope, self.length)
        self._allocate(shape.lanes, max(self.scope.parts, 1))
        self._allocate_slots(slots)
        self._programs: dict[int, Gradients] = {}
        self.groups: dict[tuple[Any, ...], Any] = {}  # of lanes: see `LaneGroup`
        self.device_steps: dict[tuple[int, ...], DeviceSteps] = {}  # by the size of batches and the groups
        self.evaluate = Evaluation(self)

    def _allocate_slots(self, most: int) -> None:
        """Allocate the inputs of a block of steps: [slots, seeds, ...], and its statistics."""
        (x, y), seeds = self.sample, self.shape.seeds
        noises = {"noise": self.shape.train.noise is not None, "privacy": bool(self.scope.clipped_parts)}
        elements = {name: self.params.size for name, there in noises.items() if there}
        elements |= {"counts": 1} if self.scope.clipped_parts else {}
        by_batch = self.dataset is not None and self.dataset.by_batch
        batch = self.length.size(0)  # a batch may be asked for that is larger than the data
        examples = batch * (x[0].nbytes + y[0].nbytes) if by_batch else 0
        each = seeds * (examples + sum(elements.values()) * self.loss.element_size())
        draws = (self.draws(size) for size in self.scope.sizes(batch) if size)
        each += seeds * sum(draw.bytes for of_part in draws for draw in of_part)
        limits = (MOST_SLOTS, MOST_BYTES) if self.device.type == "cpu" else (MOST_SLOTS_ELSEWHERE, MOST_BYTES_ELSEWHERE)
        self.slots = max(1, min(most or limits[0], self.length.epoch_steps, limits[1] // max(each, 1)))
        new = partial(self.loss.new_zeros, self.slots, seeds)
        self.noise_slots = {name: new(size) for name, size in elements.items()}
        self.example_slots: Batch | None = None
        self.index_slots: Tensor | None = None
        first = torch.arange(batch, device=self.device) % len(x)  # what programs are tried on
        shape = (self.slots, seeds, batch)
        if by_batch:
            samples = (part[first].expand(*shape, *part.shape[1:]).clone() for part in (x, y))
            self.example_slots = next(samples), next(samples)
        elif not self.length.whole:
            self.index_slots = first.expand(shape).clone()
        self.rows = self.loss.new_zeros(self.slots, STATISTICS, self.lanes)
        self.part_weights = {name: self.loss.new_zeros(self.scope.parts) for name in ("shares", "filled")}

    @property
    def path(self) -> str:
        """How gradients are computed: one of `PATHS`."""
        return slowest(each.path for each in self._programs.values())

    @property
    def note(self) -> str:
        """Why gradients or evaluations are not computed by the fastest method; empty if they are."""
        refusals = [refusal for each in self._programs.values() for refusal in each.refusals]
        return self.loop_reason or next(iter([*refusals, *self.evaluate.refusals]), "")

    @property
    def bytes(self) -> int:
        """The memory of weights and gradients; activations take about as much."""
        return self.params.storage.nbytes + sum(g.nbytes for g in self.grads.values())

    @cached_property
    def _epoch_measures(self) -> tuple[Lowered, Tensor]:
        """The program of `vanishing_and_norms`, and its results."""
        measured = self.loss.new_zeros(2, self.lanes)
        blocks = [(block, TensorAxes()) for block in (*self.grads.values(), *self.params.values())]
        inputs = [(self.part_weights["shares"], TensorAxes(lane=None)), *blocks]
        return Lowered(self._measured, inputs, [(row, TensorAxes()) for row in measured], range(self.lanes)), measured

    def _measured(self, shares: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        grads, weights = tensors[: len(self.params)], tensors[len(self.params) :]
        flat = torch.cat([(shares @ g.flatten(1)) if len(shares) else g.flatten() for g in grads])
        norms = [torch.linalg.vector_norm(w) for w in weights]
        return (flat.abs() < VANISHING).to(flat.dtype).mean(), torch.linalg.vector_norm(torch.stack(norms))

    def vanishing_and_norms(self) -> tuple[Tensor, Tensor]:
        """Return the share of each lane's raw gradient elements below 1e-8 at the last step, and the weights' norm."""
        run, measured = self._epoch_measures
        run(0, range(self.lanes))
        return measured[0], measured[1]

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
        self._size, self._workspace, scope = size, workspace, workspace.scope
        filled = sum(1 for examples in scope.sizes(size) if examples)
        self._empty = [t[:, filled:] for t in (workspace.loss, *workspace.grads.values())]
        self._looped = LoopedGradients(workspace, scope.sizes(size)) if workspace.loop_reason else None
        self._programs: list[Lowered] = []
        self._drawn: list[DrawnNumbers] = []  # by the parts of each program
        for chosen, first, examples in () if self._looped else scope.alike(size):
            space = workspace.slots, workspace.shape.seeds, chosen.stop - chosen.start
            drawn = DrawnNumbers(workspace.draws(examples), *space, workspace.device)
            self._drawn += [drawn] if drawn.draws else []
            self._programs.append(_lowered(workspace, chosen, first, examples, drawn))
        self.path = slowest(each.path for each in self._programs) or "looped"
        self.refusals = [refusal for each in self._programs for refusal in each.refusals]

    @property
    def native(self) -> list[NativeProgram]:
        """The compiled programs; empty if some of it is not compiled."""
        compiled = [each.native for each in self._programs if each.native]
        return compiled if len(compiled) == len(self._programs) else []

    def draw(self, steps: int) -> None:
        """Draw what models and losses draw in the next steps into the first slots."""
        workspace = self._workspace
        for slot in range(steps if self._drawn else 0):
            for number, seed in enumerate(workspace.seeds.different):
                generators.seed_all(generators.step_number(seed, workspace.step + 1 + slot))
                for drawn in self._drawn:
                    drawn.draw(slot, number)
        for drawn in self._drawn:
            drawn.send()

    def __call__(self, slot: int, source: BatchSource, alive: Sequence[int]) -> None:
        """Compute them for a slot of the block, at least of these lanes."""
        self.clear_empty()
        if self._looped:
            self._looped(alive, lambda lane: source.read(slot, self._workspace.seeds.numbers[lane], self._size))
        for program in self._programs:
            program(slot, alive)

    def step_on_device(self, slot: Tensor) -> None:
        """Compute them for all lanes without the host; `slot` is a number on the device."""
        for program in self._programs:
            program(slot, ())

    def clear_empty(self) -> None:
        """Set the gradients of parts without examples to 0."""
        for block in self._empty:
            if block.numel():
                block.zero_()


def _lowered(workspace: Workspace, chosen: slice, first: int, size: int, drawn: DrawnNumbers) -> Lowered:
    """Return the program for some parts of one size; `first` is the number of their first example."""
    names, count = len(workspace.params) + len(workspace.states), chosen.stop - chosen.start
    weights = [(t, TensorAxes()) for t in (*workspace.params.values(), *workspace.states.values())]
    changing = [(workspace.states[name], TensorAxes()) for name in workspace.examination.changing]
    of_seeds = TensorAxes(lane=None, seed=1, part=2, step=0)

    def cut(slots: Tensor) -> tuple[Tensor, TensorAxes]:
        """[slots, seeds, batch, ...] -> [slots, seeds, parts, size, ...]"""
        return torch.unflatten(slots[:, :, first : first + count * size], 2, (count, size)), of_seeds

    if workspace.index_slots is not None:
        batch = [cut(workspace.index_slots)]
    elif workspace.example_slots is not None:
        batch = [*map(cut, workspace.example_slots)]
    else:  # constants, if all parts have them: what is computed of them alone is computed once
        batch = [cut(t[None, None].clone()) for t in workspace.like] if workspace.scope.parts else []
    outputs = [(t[:, chosen], TensorAxes(part=1)) for t in (workspace.loss, *workspace.grads.values())]
    numbers = [(slots, of_seeds) for slots in drawn.numbers]
    function = LossFunction(workspace.network, workspace.examination.changing, drawn.draws)

    def of_part(*tensors: Tensor) -> tuple[Tensor, ...]:
        params, states, _ = workspace.named(tensors)
        given = tensors[names : names + len(batch)]
        if workspace.index_slots is not None:
            given = tuple(table.index_select(0, given[0]) for table in workspace.like)
        x, y = given or workspace.like
        loss, grads, after = function(params, states, (x, y), tensors[names + len(batch) :])
        return (loss, *(grads[name] for name in params), *after.values())

    inputs, lanes = [*weights, *batch, *numbers], range(workspace.lanes)
    outputs, rounding = [*outputs, *changing], workspace.network.rounding
    return Lowered(of_part, inputs, outputs, lanes, count, seeds=workspace.seeds, rounding=rounding)
