"""Trains a chunk of lanes in a workspace, and turns what happened into records."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipbench.dataset import Stream
from clipbench.engine.asking import Ask, Asking
from clipbench.engine.batches import Schedule, source
from clipbench.engine.blocks import lane_norms
from clipbench.engine.clipping import Clipping, sort_key
from clipbench.engine.fates import Fates
from clipbench.engine.membership import MEMBERS, OTHERS, advantages, example_losses
from clipbench.engine.network import build_model
from clipbench.engine.noise import Noise
from clipbench.engine.optimizing import Optimizers
from clipbench.engine.partwise import PartClipping
from clipbench.engine.stopping import Stopping
from clipbench.engine.telemetry import LOSS, PRE, WEIGHTS, Telemetry
from clipbench.engine.workspace import Workspace
from clipbench.trial import Trial

Progress = Callable[[int], None]  # told of lane-steps as they are done

# A rule's own cost is measured at one step in so many.
TIMED_EVERY = 16
# After so many steps, and at the end of an epoch, it is looked whether any lane is still alive.
LOOK_EVERY = 64
LOSS_OF_EPOCH = "train/loss"


@dataclass
class Outcome:
    """What a chunk's lanes went through; lanes in the order of `trials`."""

    trials: Sequence[Trial]
    schedule: Schedule
    fresh: bool  # of a stream: no example is seen twice, but for chance
    steps: np.ndarray  # [steps, statistics, lanes]
    epochs: dict[str, np.ndarray]  # [epochs, lanes]
    finals: dict[str, np.ndarray]  # part -> [measures, lanes]
    membership: np.ndarray  # [lanes], what the losses give away of who was trained on
    weights: dict[str, np.ndarray]  # [lanes, *shape] of each tensor, at the end
    diverged_step: np.ndarray  # [lanes], from 1; 0 = it did not
    diverged_cause: list[str]
    stopped_epoch: np.ndarray  # [lanes], from 1; 0 = it went to the end
    pruned_epoch: np.ndarray  # [lanes], from 1; 0 = it was not
    rule_seconds: list[float]
    seconds: float

    def last_step(self, lane: int) -> int:
        """The last step that counts, from 1."""
        ended = int(self.stopped_epoch[lane] or self.pruned_epoch[lane]) * self.schedule.epoch_steps
        return int(self.diverged_step[lane]) or ended or len(self.steps)


def order(trials: Sequence[Trial]) -> list[Trial]:
    """Lanes of one optimizer stand together, and among them lanes of one rule."""
    return sorted(trials, key=lambda trial: (repr(trial.optimizer), *sort_key(trial), trial.seed))


def train(trials: Sequence[Trial], workspace: Workspace, progress: Progress, ask: Ask | None = None) -> Outcome:
    """Train the lanes to the end, or until every one of them has diverged, stopped or was pruned."""
    cohort = Cohort(trials, workspace)
    return cohort.run(progress, ask)


class Cohort:
    """The state of a chunk under way."""

    def __init__(self, trials: Sequence[Trial], workspace: Workspace) -> None:
        self.trials = trials
        self.work = workspace
        self.schedule = Schedule.of(trials[0].train, workspace.dataset)
        seeds = [trial.seed for trial in trials]
        modules = {seed: build_model(trials[0].model, workspace.dataset, seed) for seed in set(seeds)}
        workspace.start([modules[seed] for seed in seeds], seeds)
        self.telemetry = Telemetry(self.schedule.steps, workspace.params, workspace.grads)
        given = (trials, workspace.params, workspace.grads, self.telemetry, self.schedule.steps)
        parts = workspace.split
        self.clipping: Clipping | PartClipping = PartClipping(*given, parts) if parts else Clipping(*given)
        self.optimizers = Optimizers(trials, workspace, self.clipping, self.schedule.steps)
        law = trials[0].train.noise
        self.noise = Noise(law, *workspace.raw) if law else None
        self.source = source(self.schedule, workspace.dataset, workspace.like, seeds, workspace.device)
        self.fates = Fates(len(trials), trials[0].train.diverge_above)
        self.stopping = Stopping(trials[0].train, workspace, self.fates)
        self.step = 0
        self.epochs: dict[str, list[np.ndarray]] = {}

    def run(self, progress: Progress, ask: Ask | None = None) -> Outcome:
        asking = Asking(ask, self.trials, self.fates) if ask else None
        for step in (0, self.schedule.epoch_steps - 1):
            self.work.batch(self.schedule.size(step))  # traces the programs, which is no part of a step's time
        start = time.perf_counter()
        for epoch in range(self.schedule.epochs):
            if not self._epoch(epoch, progress):
                break
            self._end_of_epoch(epoch, asking)
            if not self.fates.alive.any():
                break
        progress((self.schedule.steps - self.step) * len(self.trials))
        return self._outcome(start)

    def seconds_per_step(self, budget: float) -> float:
        """The time of a step of all lanes, from as many as fit the budget, in seconds; at least one."""
        size = self.schedule.size(0)
        self.source.fill(0, self.work.batch(size))
        self.work.gradients(size)  # traces and warms up
        start, done = time.perf_counter(), 0
        while not done or (done < self.schedule.steps and time.perf_counter() - start < budget):
            self._one_step(size)
            done += 1
        return (time.perf_counter() - start) / done

    def _epoch(self, epoch: int, progress: Progress) -> bool:
        """Whether there is still a lane to train at its end."""
        steps = self.schedule.steps_in(epoch)
        for number in range(steps):
            size = self.schedule.size(number)
            self.source.fill(number, self.work.batch(size))
            self._one_step(size)
            progress(len(self.trials))
            if (number + 1 == steps or self.step % LOOK_EVERY == 0) and self._all_done():
                return False
        return True

    def _one_step(self, size: int) -> None:
        self.work.gradients(size)
        with torch.inference_mode():  # every operator costs a fifth less without autograd's bookkeeping
            if self.noise:
                self.noise()
            self.clipping.gather(size, self.work.loss)
            self.telemetry.before(self.work.loss)
            timed = self.step % TIMED_EVERY == 0 and self.work.device.type == "cpu"
            self.clipping(size, timed)
            self.optimizers.step()
            self.clipping.after_step(self.step, self.optimizers.rates, timed)
            self.telemetry.after(self.step)
        self.step += 1

    def _end_of_epoch(self, epoch: int, asking: Asking | None) -> None:
        last = epoch + 1 == self.schedule.epochs
        measured = self._measured(epoch, last)
        for name, value in measured.items():
            column = self.epochs.setdefault(name, [])
            column += [np.full(len(self.trials), np.nan)] * (epoch - len(column))
            column.append(value)
        if last:
            return
        losses = self.telemetry.steps[epoch * self.schedule.epoch_steps : self.step, LOSS]
        self._look_for_divergence()
        if self.stopping.measure:
            self.stopping.look(epoch + 1, {**measured, LOSS_OF_EPOCH: _array(losses.mean(0))})
        if asking:
            asking(epoch + 1, {**measured, LOSS_OF_EPOCH: _array(losses.double().mean(0))})

    def _measured(self, epoch: int, last: bool) -> dict[str, np.ndarray]:
        """What the table of epochs says of one, beside what follows from its steps: [lanes] of each measure."""
        weights = lane_norms(block.view(block.shape[0], -1) for block in self.work.params.values())
        measured = {"grad/vanishing": _array(self.telemetry.vanishing()), "weight_norm": _array(weights)}
        train = self.trials[0].train
        if self.work.parts["val"] is not None and (last or (epoch + 1) % train.evaluate_every == 0):
            for name, value in zip(train.measures, self.work.evaluate("val"), strict=True):
                measured[f"val/{name}"] = _array(value)
        return measured

    def _all_done(self) -> bool:
        latest = self.telemetry.steps[self.step - 1]
        finite = latest[[LOSS, PRE, WEIGHTS]].isfinite().all(0).cpu().numpy()
        if (finite & self.fates.alive).any():
            return False  # the usual case, without looking back over all steps
        self._look_for_divergence()
        return not self.fates.alive.any()

    def _look_for_divergence(self) -> None:
        steps = self.telemetry.steps[self.fates.seen : self.step]
        self.fates.look(steps.cpu().numpy(), self.clipping.refuses)

    def _finals(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The measures of every part, [measures, lanes], and the losses of single examples, by part."""
        finals, losses = {}, {}
        for name, part in self.work.parts.items():
            if part is None:
                continue
            measures, outputs = self.work.evaluate.with_outputs(name)
            finals[name] = measures.cpu().numpy().copy()
            single = example_losses(self.work.network, outputs, part[1]) if name in (MEMBERS, OTHERS) else None
            if single is not None:
                losses[name] = single
        return finals, losses

    def _curves(self) -> dict[str, np.ndarray]:
        """[epochs, lanes] of each measure; NaN after the last epoch that it was measured in."""
        nothing = [np.full(len(self.trials), np.nan)]
        length = max(map(len, self.epochs.values()), default=0)
        return {name: np.stack(column + nothing * (length - len(column))) for name, column in self.epochs.items()}

    def _outcome(self, start: float) -> Outcome:
        self.stopping.restore()
        finals, losses = self._finals()
        self._look_for_divergence()
        steps = self.telemetry.steps[: self.step]
        self.clipping.finish(steps)
        return Outcome(
            trials=self.trials,
            schedule=self.schedule,
            fresh=isinstance(self.work.dataset, Stream),
            steps=steps.cpu().numpy(),
            epochs=self._curves(),
            finals=finals,
            membership=advantages(losses, len(self.trials)),
            weights={name: block.cpu().numpy() for name, block in self.work.params.items()},
            diverged_step=self.fates.diverged_step,
            diverged_cause=self.fates.causes,
            stopped_epoch=self.fates.stopped_epoch,
            pruned_epoch=self.fates.pruned_epoch,
            rule_seconds=[self.clipping.step_seconds(lane) for lane in range(len(self.trials))],
            seconds=time.perf_counter() - start,
        )


def _array(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.cpu().numpy().copy()
    return array
