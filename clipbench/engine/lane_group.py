"""A group of lanes that share a rule and an optimizer: what they remember, and the programs of their steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from clipbench.compiler.native_program import NativeProgram, TensorAxes
from clipbench.core.trial import Trial
from clipbench.engine.clipping import lane_order
from clipbench.engine.clipping.adaptive_threshold import gradient_noise_multiplier
from clipbench.engine.clipping.rule import Thresholds
from clipbench.engine.clipping.threshold_groups import norm_of_factors
from clipbench.engine.gradients.workspace import Workspace
from clipbench.engine.inputs.upload import upload
from clipbench.engine.lowering import Bound, Lowered
from clipbench.engine.optimizers import OwnOptimizer, Update, has_formula, learning_rates
from clipbench.engine.schedule_factor import factor_of_step
from clipbench.engine.step import WEIGHTS, Step, Values

LANE, SHARED, MOVING, SLOTS, OF_SEEDS = (
    TensorAxes(),
    TensorAxes(lane=None),
    TensorAxes(lane=1, step=0),
    TensorAxes(lane=None, step=0),
    TensorAxes(lane=None, seed=1, step=0),
)


def group_key(trial: Trial) -> tuple[str, ...]:
    """Return what lanes of a group share."""
    return repr(trial.optimizer.without("lr")), *lane_order.grouping_key(trial.clip)


class LaneGroup:
    """Consecutive lanes of a workspace, and the half of their steps that follows the gradient."""

    def __init__(self, trials: Sequence[Trial], lanes: range, workspace: Workspace) -> None:
        self.lanes, self._workspace = lanes, workspace
        self._trial = trial = trials[0]
        params = {name: block[lanes.start : lanes.stop] for name, block in workspace.params.items()}
        like = workspace.params.storage
        owned = workspace.examination.gradients_vary or not has_formula(trial.optimizer)
        make: Callable[..., Step] = partial(
            Step,
            trial,
            {name: block.shape[1:] for name, block in params.items()},
            workspace.scope,
            None if owned else Update(trial.optimizer, params),
            workspace.examination.idle,
        )
        self._torch, self._exact = make(exact=False), make(exact=True)
        self.refuses, self.error_if_nonfinite = self._torch.refuses, self._torch.error_if_nonfinite
        self._initial = self._torch.initial(len(lanes), like)
        self.memory = {name: value.clone() for name, value in self._initial.items()}
        slots = workspace.slots
        self._now = {
            **{rate: like.new_ones(slots, len(lanes)) for rate in learning_rates(trial.optimizer)},
            "threshold": like.new_ones(slots, len(lanes)),
            "on": like.new_ones(slots),
            "step": like.new_ones(slots),
        }
        self._bound = self._bind(params, between=owned or workspace.keeps_clipped)
        self._programs = self._make_programs(owned)
        self.own: list[OwnOptimizer] = []
        self.seconds, self.steps = 0.0, 0  # what its steps took, and the lane-steps that were timed

    def _bind(self, params: dict[str, Tensor], between: bool) -> dict[str, Bound]:
        """Return the tensors of a step by name: those of lanes, of steps, and what all share.

        What one half of a step hands over to the other, `between` them, is kept only where it is read.
        """
        workspace, lanes = self._workspace, slice(self.lanes.start, self.lanes.stop)
        per_lane = {f"params.{name}": block for name, block in params.items()} | self.memory
        averages = {} if workspace.averages is None else workspace.averages
        per_lane |= {f"average.{name}": block[lanes] for name, block in averages.items()}
        per_lane |= {f"grads.{name}": g[lanes] for name, g in workspace.grads.items()} | {"loss": workspace.loss[lanes]}
        if between:
            kinds = ("gradient", "old")
            per_lane |= {f"{kind}.{n}": torch.zeros_like(block) for kind in kinds for n, block in params.items()}
            per_lane |= {f"row.{number}": torch.zeros_like(self.memory["t"]) for number in range(WEIGHTS)}
            per_lane["keep"] = torch.ones(len(self.lanes), dtype=torch.bool, device=workspace.device)
        noise = workspace.noise_slots
        tensors: dict[str, Bound] = {
            **{name: (t, LANE) for name, t in per_lane.items()},
            **{name: (t, MOVING if t.dim() > 1 else SLOTS) for name, t in self._now.items()},
            **{name: (t, OF_SEEDS) for name, t in noise.items()},
            **{name: (t, SHARED) for name, t in workspace.part_weights.items()},
            "row": (workspace.rows[:, :, lanes], TensorAxes(lane=2, step=0)),
        }
        if "privacy" in noise:
            clip = self._trial.clip
            noise_of_all = gradient_noise_multiplier(clip) * norm_of_factors(clip, params)
            share = noise_of_all / (workspace.scope.expected or 1)
            tensors["privacy_share"] = (workspace.loss.new_tensor(share), SHARED)
        return tensors

    def _make_programs(self, owned: bool) -> list[Lowered]:
        given = {*self._now, "noise", "privacy", "privacy_share", "counts", "shares", "filled"}
        raw = given | {"params", "grads", "loss", "memory"}
        new = {"params", "average", "memory", "row"}
        if not owned:
            kept = {"gradient", "keep"} if self._workspace.keeps_clipped else set()
            return [self._lowered("__call__", raw | {"slots", "t", "average"}, new | {"slots", "t"} | kept)]
        changed = given | {"params", "old", "gradient", "average", "memory", "row."}
        return [
            self._lowered("clip_gradient", raw, {"gradient", "memory", "keep", "row."}),
            self._lowered("record", changed, new),
        ]

    def _lowered(self, stage: str, reads: set[str], writes: set[str]) -> Lowered:
        """Return the program of a stage of the step."""
        bound = self._bound
        inputs = [name for name in bound if _kind(name) in reads]
        function, exact = getattr(self._torch, stage), getattr(self._exact, stage)
        with torch.no_grad():
            results = function({name: axes.one(t, 0).clone() for name, (t, axes) in bound.items() if name in inputs})
        outputs = [name for name in bound if _kind(name) in writes and name in results]

        def positional(of_names: Callable[[Values], Values]) -> Callable[..., list[Tensor]]:
            def of_lane(*tensors: Tensor) -> list[Tensor]:
                results = of_names(dict(zip(inputs, tensors, strict=True)))
                return [results[name] for name in outputs]

            return of_lane

        read, written = ([bound[name] for name in names] for names in (inputs, outputs))
        seeds = self._workspace.seeds
        return Lowered(positional(function), read, written, self.lanes, exact=positional(exact), seeds=seeds)

    def clipped(self) -> dict[str, Tensor]:
        """Return the gradients that the optimizer got at the last step, [lanes, ...]: zeros for a refused step."""
        keep = self._tensor("keep")
        blocks = {name: self._tensor(f"gradient.{name}") for name in self._workspace.params}
        return {n: torch.where(keep.view(-1, *[1] * (b.dim() - 1)), b, 0.0) for n, b in blocks.items()}

    @property
    def native(self) -> list[NativeProgram]:
        """The compiled programs of a step; empty if some of it is not compiled."""
        compiled = [program.native for program in self._programs if program.native]
        return compiled if len(self._programs) == 1 else []

    @property
    def notes(self) -> list[str]:
        """Why a step is not computed by the fastest method."""
        own = [f"{self._trial.optimizer.name} is called for each trial and step"] if self.own else []
        return [*(refusal for each in self._programs for refusal in each.refusals), *own]

    def start(self, trials: Sequence[Trial], steps: int) -> None:
        """Begin a training of these trials."""
        for name, value in self._initial.items():
            self.memory[name].copy_(value)
        train = trials[0].train
        self.seconds, self.steps, self._begins = 0.0, 0, True
        on_cpu = torch.empty(0, dtype=self._workspace.loss.dtype)
        self._thresholds = Thresholds([trial.clip for trial in trials], train.schedule, steps, on_cpu)
        self._factor_of = factor_of_step(train.schedule, steps)
        vary = self._workspace.examination.gradients_vary
        if not vary and has_formula(trials[0].optimizer):
            rates = [learning_rates(trial.optimizer) for trial in trials]
            self._rates = {n: torch.tensor([each[n] for each in rates], dtype=torch.float64) for n in rates[0]}
        else:
            self.own = [
                OwnOptimizer(trial.optimizer, self._workspace, lane, self._gradient_of(row))
                for row, (lane, trial) in enumerate(zip(self.lanes, trials, strict=True))
            ]
            if train.schedule and not all(optimizer.has_rate for optimizer in self.own):
                raise ValueError("the optimizer has no `lr` that a schedule could change")

    def _gradient_of(self, row: int) -> Mapping[str, Tensor]:
        return {name: self._tensor(f"gradient.{name}")[row] for name in self._workspace.params}

    def _tensor(self, name: str) -> Tensor:
        return self._bound[name][0]

    def prepare(self, first: int, steps: int) -> None:
        """Write thresholds, learning rates and numbers of the next steps, counted from 0, into the slots."""
        now, numbers = self._now, range(first, first + steps)
        upload(now["step"][:steps], torch.arange(first + 1, first + steps + 1))
        begins, self._begins = self._begins, False
        if self._thresholds.moves or begins:
            for name, table in zip(("threshold", "on"), self._thresholds.table(first, steps), strict=True):
                upload(now[name][:steps], table)
        if self._trial.train.schedule or begins:
            self._factors = [self._factor_of(step) for step in numbers]
            if not self.own:
                factors = torch.tensor(self._factors, dtype=torch.float64)
                for name, rates in self._rates.items():
                    upload(now[name][:steps], factors.unsqueeze(1) * rates)
        if begins:  # later blocks may be longer
            for name in now.keys() - {"step"}:
                now[name][steps:] = now[name][0]
            self._factors += self._factors[:1] * (len(now["on"]) - steps)

    def step_on_device(self, slot: Tensor) -> None:
        """Take one step of all lanes, given their gradients, without the host; `slot` is a number on the device."""
        self._programs[0](slot, self.lanes)

    def step(self, slot: int, alive: Sequence[int]) -> None:
        """Take one step, at least of the lanes that are alive, given their gradients."""
        start, alive = perf_counter(), [lane for lane in alive if lane in self.lanes]
        if not self.own:
            self._programs[0](slot, alive)
        else:
            before, after = self._programs
            before(slot, alive)
            for name, block in self._workspace.params.items():
                self._tensor(f"old.{name}").copy_(block[self.lanes.start : self.lanes.stop])
            keep = self._tensor("keep").tolist() if self.refuses else [True] * len(self.lanes)
            for lane in alive:
                row = lane - self.lanes.start
                if keep[row]:
                    self.own[row].step(self._factors[slot])
                for rate, name in self._torch.one_of_each_rate.items():
                    self._now[rate][slot, row] = self.own[row].lr_of(name)
            after(slot, alive)
        self.seconds += perf_counter() - start
        self.steps += len(alive)

    @staticmethod
    def key(trials: Sequence[Trial], lanes: range) -> tuple[Any, ...]:
        """Return what chunks must have in common to use the same group."""
        return lanes, group_key(trials[lanes.start])


def _kind(name: str) -> str:
    return "row." if name.startswith("row.") else name.partition(".")[0]


def groups_of(trials: Sequence[Trial]) -> list[range]:
    """Return the runs of lanes that are a group each."""
    starts = [lane for lane, trial in enumerate(trials) if not lane or group_key(trial) != group_key(trials[lane - 1])]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], len(trials)], strict=True)]


def groups_in(trials: Sequence[Trial], workspace: Workspace) -> list[LaneGroup]:
    """Return the groups of lanes; a workspace keeps those of its chunks, whose programs differ only in numbers."""
    found = []
    for lanes in groups_of(trials):
        key = LaneGroup.key(trials, lanes)
        if key not in workspace.groups:
            workspace.groups[key] = LaneGroup(trials[lanes.start : lanes.stop], lanes, workspace)
        found.append(workspace.groups[key])
    return found
