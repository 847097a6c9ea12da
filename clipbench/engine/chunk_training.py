"""The training of a chunk of lanes from the first step to the last, and its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from clipbench.core import generators
from clipbench.core.time_limit import TIME_LIMIT
from clipbench.core.trial import Trial
from clipbench.engine.checkpoint import Checkpoint
from clipbench.engine.chunk_result import ChunkResult
from clipbench.engine.clipping.adaptive_threshold import AdaptiveThreshold
from clipbench.engine.early_stop import EarlyStopping
from clipbench.engine.gradients.workspace import Workspace
from clipbench.engine.inputs.batches import batch_source
from clipbench.engine.inputs.gradient_noise import Noise, count_noise, gradient_noise, privacy_noise
from clipbench.engine.lane_group import groups_in
from clipbench.engine.lane_status import LaneStatus
from clipbench.engine.membership_inference import MEMBERS, OTHERS, advantages, example_losses
from clipbench.engine.optimizers import OwnOptimizer
from clipbench.engine.pruning import ChoosePruned, Pruning
from clipbench.engine.step import LOSS
from clipbench.engine.step_runner import StepRunner
from clipbench.engine.step_statistics import StepStatistics
from clipbench.engine.training_state import state_of
from clipbench.engine.unmoved_weights import UnmovedWeights

Progress = Callable[[int], None]  # called with the number of lane-steps that were done
LOSS_OF_EPOCH = "train/loss"


class ChunkTraining:
    """A chunk in training. Lanes that have ended take no more steps where each lane is computed alone."""

    def __init__(self, trials: Sequence[Trial], workspace: Workspace) -> None:
        self.trials, self.workspace = trials, workspace
        self.length = length = workspace.length
        workspace.start([trial.seed for trial in trials])
        seeds = workspace.seeds.different
        self.groups = groups_in(trials, workspace)
        for group in self.groups:
            group.start(trials[group.lanes.start : group.lanes.stop], length.steps)
        slots = workspace.example_slots or workspace.index_slots
        self._source = batch_source(length, workspace.dataset, workspace.like, seeds, slots)
        self._noises = list(self._make_noises(seeds))
        self._statistics = StepStatistics(length.steps, len(trials), workspace.loss.dtype, workspace.device)
        self.steps = self._statistics.array
        self._runner = StepRunner(workspace, self.groups)
        self._unmoved = UnmovedWeights(trials, self.groups, workspace.params)
        self.status = LaneStatus(len(trials), trials[0].train.diverge_above)
        self.early_stopping = EarlyStopping(trials[0].train, workspace, self.status)
        measured = [f"val/{name}" for name in trials[0].train.measures if workspace.parts["val"] is not None]
        self.epochs = {
            name: np.full((length.epochs, len(trials)), np.nan) for name in ("grad/vanishing", "weight_norm", *measured)
        }
        parts = self._source, self._noises, self.status, self.early_stopping, self.epochs, self.steps
        self.state = state_of(workspace, self.groups, *parts)
        self._start = self._waited = 0.0  # seconds; those waited for decisions on pruning
        self._checkpoint = Checkpoint(None)

    @property
    def step(self) -> int:
        return self.state.step

    def _make_noises(self, seeds: Sequence[int]) -> Iterator[Noise]:
        workspace = self.workspace
        law, slots = self.trials[0].train.noise, workspace.noise_slots
        if law:
            yield gradient_noise(law, workspace.params.size, seeds, slots["noise"])
        if any(trial.clip.as_dict().get("noise") for trial in self.trials):
            shapes = {name: block.shape[1:] for name, block in workspace.params.items()}
            yield privacy_noise(shapes, workspace.loss.dtype, seeds, slots["privacy"])
        adaptive = filter(None, (AdaptiveThreshold.of(trial.clip) for trial in self.trials))
        if any(each.noise for each in adaptive) and "counts" in slots:
            yield count_noise(workspace.loss.dtype, seeds, slots["counts"])

    @property
    def note(self) -> str:
        """Why some of a step is not computed by the fastest method; empty if all is."""
        of_groups = (note for group in self.groups for note in group.notes)
        notes = [self.workspace.note, *of_groups, *self._runner.notes]
        return next(filter(None, notes), "")

    @property
    def refuses(self) -> list[bool]:
        """Whether the rule of each lane may refuse a step."""
        return [group.refuses for group in self.groups for _ in group.lanes]

    @property
    def modules(self) -> list[torch.nn.Module]:
        """The modules of lanes that are trained one after another."""
        return [model.module for model in self.workspace.models]

    @property
    def optimizers(self) -> list[OwnOptimizer]:
        """The optimizers that are objects of torch, or of the user's."""
        return [each for group in self.groups for each in group.own]

    def times(self) -> list[float]:
        """Return the time that training has taken, and that of each group with its steps."""
        return [self._now() - self._start, *(each for group in self.groups for each in (group.seconds, group.steps))]

    def resume_times(self, times: Sequence[float]) -> None:
        """Go on with these."""
        self._waited -= times[0]
        for group, seconds, steps in zip(self.groups, times[1::2], times[2::2], strict=True):
            group.seconds, group.steps = seconds, int(steps)

    def run(
        self, progress: Progress, choose_pruned: ChoosePruned | None = None, checkpoint: Checkpoint | None = None
    ) -> ChunkResult:
        """Train until the last epoch, or until every lane has diverged, stopped or was pruned."""
        self._checkpoint = checkpoint or Checkpoint(None)
        with self._as_training():
            return self._run(progress, choose_pruned)

    @contextmanager
    def _as_training(self) -> Iterator[None]:
        """Keep the caller's generators of random numbers, and limit the time of steps."""
        with generators.preserved(), TIME_LIMIT.within(self.trials[0].train.timeout_per_step):
            yield

    def _run(self, progress: Progress, choose_pruned: ChoosePruned | None) -> ChunkResult:
        pruning = Pruning(choose_pruned, self.trials, self.status) if choose_pruned else None
        for number in (0, self.length.epoch_steps - 1):
            self.workspace.gradients(self.length.size(number))  # compiling is not counted as training time
        self.workspace.evaluate.prepare()
        self._start = self._now()
        self._checkpoint.resume(self)
        progress(self.step * len(self.trials))
        for epoch in range(self.step // self.length.epoch_steps, self.length.epochs):
            if not self._epoch(epoch, progress):
                break
            self._end_of_epoch(epoch, pruning)
            if not self.status.alive.any():
                break
            self._keep()
        progress((self.length.steps - self.step) * len(self.trials))
        return self._result()

    def _now(self) -> float:
        """Return the time in seconds, without the time spent waiting for decisions on pruning."""
        return time.perf_counter() - self._waited

    def seconds_per_step(self, budget: float) -> float:
        """Return the mean time of a step of all lanes, over the steps that fit the budget in seconds, at least one."""
        with self._as_training():
            self._block(0, 1)  # compiles and warms up
            self.state.step = 0
            start, count = time.perf_counter(), 1
            alike = min(self.workspace.slots, max(self.length.epoch_steps - 1, 1))
            while count and (not self.step or time.perf_counter() - start < budget):
                self._block(0, count)
                self._statistics.wait()
                count = min(alike, self.length.steps - self.step)
            return (time.perf_counter() - start) / self.step

    def rehearse(self, between_steps: Callable[[], None]) -> None:
        """Take two steps and evaluate every part of the data; raise what fails."""
        with self._as_training():
            for _ in range(2):
                self._block(0, 1)
                between_steps()
            self._finals()

    def _epoch(self, epoch: int, progress: Progress) -> bool:
        """Train for one epoch; return whether any lane is still alive at its end."""
        steps, done = self.length.steps_in(epoch), self.step - epoch * self.length.epoch_steps
        while done < steps:
            count = self._steps_alike(done, steps)
            self._block(done, count)
            done += count
            progress(count * len(self.trials))
            if self.workspace.device.type == "cpu" or done == steps:  # another device is asked once an epoch
                self._check_divergence()
            if not self.status.alive.any():
                return False
            if done < steps and self._source.goes_on_within_epoch:
                self._keep()
        return True

    def _keep(self) -> None:
        if self._checkpoint.is_due:
            self._statistics.wait()
            self._checkpoint.keep(self)

    def _steps_alike(self, first: int, last: int) -> int:
        """Return how many of the next steps of an epoch fit a block and have batches of one size."""
        size, count = self.length.size(first), 1
        while count < self.workspace.slots and first + count < last and self.length.size(first + count) == size:
            count += 1
        return count

    def _block(self, step_in_epoch: int, steps: int) -> None:
        """Take some steps whose batches have one size."""
        TIME_LIMIT.renew(steps)
        self.workspace.step = self.step
        self._source.draw(step_in_epoch, steps)
        for noise in self._noises:
            noise.draw(steps)
        self.workspace.gradients(self.length.size(step_in_epoch)).draw(steps)
        for group in self.groups:
            group.prepare(self.step, steps)
        alive = self.status.alive
        self._take_steps(self.length.size(step_in_epoch), steps, np.flatnonzero(alive).tolist())
        self._statistics.fetch(self.step, self.workspace.rows[:steps], ~alive)
        self.state.step += steps
        TIME_LIMIT.end_first()

    def _take_steps(self, size: int, steps: int, alive: Sequence[int]) -> None:
        """Take the steps whose inputs were drawn, at least of the lanes that are alive."""
        self._runner(size, steps, alive, self._source)

    def _check_divergence(self) -> None:
        self._statistics.wait()
        steps = self.steps[self.status.checked[0] : self.step]
        errors = [group.error_if_nonfinite for group in self.groups for _ in group.lanes]
        self.status.check_divergence(steps, self.refuses, errors)

    def _end_of_epoch(self, epoch: int, pruning: Pruning | None) -> None:
        last = epoch + 1 == self.length.epochs
        measured = self._measured(epoch, last)
        for name, value in measured.items():
            self.epochs[name][epoch] = value
        if last:
            return
        losses = self.steps[epoch * self.length.epoch_steps : self.step, LOSS]
        measured[LOSS_OF_EPOCH] = losses.mean(0, dtype=np.float64)
        if self.early_stopping.measure:
            self.early_stopping.update(epoch + 1, measured)
        if pruning:
            began = time.perf_counter()
            pruning(epoch + 1, measured)
            self._waited += time.perf_counter() - began

    def _measured(self, epoch: int, last: bool) -> dict[str, np.ndarray]:
        """Return the measures at the end of an epoch, [lanes] of each, without those that follow from its steps."""
        measured = dict(zip(("grad/vanishing", "weight_norm"), self.workspace.vanishing_and_norms(), strict=True))
        train = self.trials[0].train
        if self.workspace.parts["val"] is not None and (last or (epoch + 1) % train.evaluate_every == 0):
            names = (f"val/{name}" for name in train.measures)
            measured |= dict(zip(names, self.workspace.evaluate("val"), strict=True))
        together = _array(torch.stack(list(measured.values())))  # one copy from the device
        arrays = dict(zip(measured, together, strict=True))
        arrays["grad/vanishing"][~self.status.alive] = math.nan  # its gradient is that of an earlier step
        return arrays

    def _finals(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the measures of every part, [measures, lanes], and the membership advantage of each lane.

        Only those of lanes that trained to their end are used.
        """
        workspace, status = self.workspace, self.status
        wanted = (status.diverged_step == 0) & (status.pruned_epoch == 0)
        finals: dict[str, np.ndarray] = {}
        losses = {}
        for name, part in workspace.parts.items() if wanted.any() else ():
            if part is None:
                continue
            measures, outputs = workspace.evaluate.with_outputs(name)
            finals[name] = _array(measures)
            single = example_losses(workspace.network, outputs, part[1]) if name in (MEMBERS, OTHERS) else None
            if single is not None:
                losses[name] = single
        return finals, advantages(losses, len(self.trials))

    def _result(self) -> ChunkResult:
        self.early_stopping.restore()
        finals, membership = self._finals()
        steps = self.steps[: self.step]
        self._unmoved.refuse(steps, self.status.diverged_step)
        epochs = self.length.epochs if self.step == self.length.steps else self.step // self.length.epoch_steps
        own = [group.seconds / max(group.steps, 1) for group in self.groups for _ in group.lanes]
        return ChunkResult(
            trials=self.trials,
            length=self.length,
            fresh=self.workspace.dataset is not None and not self.workspace.dataset.has_fixed_examples,
            steps=steps,
            epochs={name: curve[:epochs] for name, curve in self.epochs.items()},
            finals=finals,
            membership=membership,
            weights={name: block.cpu().numpy() for name, block in self.workspace.evaluated.items()},
            status=self.status,
            rule_seconds=own,
            seconds=self._now() - self._start,
        )


def _array(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.cpu().numpy().copy()
    return array
