"""Trains a chunk of lanes in a workspace, and turns what happened into records."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from clipbench.core.trial import Trial
from clipbench.datasets import Stream
from clipbench.engine.clipping.groups import sort_key
from clipbench.engine.early_stop import Stopping
from clipbench.engine.gradients.cache import Shelf
from clipbench.engine.gradients.workspace import Shape, Workspace
from clipbench.engine.inputs.batches import Schedule
from clipbench.engine.lane_status import Fates
from clipbench.engine.lanes import Lanes
from clipbench.engine.membership_inference import MEMBERS, OTHERS, advantages, example_losses
from clipbench.engine.model.functional import build_model
from clipbench.engine.model.stacked import lane_norms
from clipbench.engine.pruning import Ask, Asking
from clipbench.engine.telemetry import LOSS

Progress = Callable[[int], None]  # told of lane-steps as they are done

# After so many steps, and at the end of an epoch, it is looked which lanes are still alive.
LOOK_EVERY = 64
WATCHED = 1  # a step, from 0, at which no rule's time is taken
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


def train(
    trials: Sequence[Trial],
    workspace: Workspace,
    progress: Progress,
    ask: Ask | None = None,
    shelf: Shelf | None = None,
) -> Outcome:
    """Train the lanes to the end, or until every one of them has diverged, stopped or was pruned.

    With a shelf, those that are left go on in smaller workspaces.
    """
    cohort = Cohort(trials, workspace, shelf)
    return cohort.run(progress, ask)


class Cohort:
    """The state of a chunk under way: all of its lanes, and those that still step forward."""

    def __init__(self, trials: Sequence[Trial], workspace: Workspace, shelf: Shelf | None = None) -> None:
        self.trials = trials
        self.schedule = Schedule.of(trials[0].train, workspace.dataset)
        seeds = [trial.seed for trial in trials]
        modules = {seed: build_model(trials[0].model, workspace.dataset, seed) for seed in set(seeds)}
        workspace.start([modules[seed] for seed in seeds], seeds)
        self.all = self.lanes = Lanes(trials, workspace, self.schedule)
        self.places = np.arange(len(trials))  # of `lanes` among all
        self.fates = Fates(len(trials), trials[0].train.diverge_above)
        self.stopping = Stopping(trials[0].train, len(trials), self.fates)
        self.epochs: dict[str, list[np.ndarray]] = {}
        self._shelf = shelf
        self._missed: dict[Shape, float] = {}  # seconds that workspaces which are not there would have saved
        self._since = 0, 0.0  # the step and the time at which `lanes` began
        self._waited = 0.0  # seconds, for answers
        self._rule_costs = np.zeros((2, len(trials)))  # seconds, and at how many steps they were taken

    @property
    def work(self) -> Workspace:
        return self.lanes.work

    @property
    def step(self) -> int:
        return self.lanes.step

    def run(self, progress: Progress, ask: Ask | None = None) -> Outcome:
        asking = Asking(ask, self.trials, self.fates) if ask else None
        start = self._begin()
        for epoch in range(self.schedule.epochs):
            if not self._epoch(epoch, progress):
                break
            self._end_of_epoch(epoch, asking)
            if not self.fates.alive.any():
                break
            self._leave_the_others(progress)
        progress((self.schedule.steps - self.step) * len(self.places))
        if self._shelf:
            self._shelf.regret(self._missed)
        return self._outcome(start)

    def _begin(self) -> float:
        """Trace the programs, which is no part of a step's time; then the clock starts."""
        self.lanes.trace()
        self._since = self.step, self._now()
        return self._since[1]

    def _now(self) -> float:
        """By a clock that stands still while others are waited for."""
        return time.perf_counter() - self._waited

    def seconds_per_step(self, budget: float) -> float:
        """The time of a step of all lanes, from as many as fit the budget, in seconds; at least one."""
        size = self.lanes.fill(0)
        self.work.gradients(size)  # traces and warms up
        start, done = time.perf_counter(), 0
        while not done or (done < self.schedule.steps and time.perf_counter() - start < budget):
            self._one_step(size)
            done += 1
        return (time.perf_counter() - start) / done

    def _epoch(self, epoch: int, progress: Progress) -> bool:
        """Whether there is still a lane to train at its end."""
        steps = self.schedule.steps_in(epoch)
        for number in range(1, steps + 1):
            self._one_step(self.lanes.fill(number - 1))
            progress(len(self.places))
            if number == steps or self.step % LOOK_EVERY == 0:
                self._look_for_divergence()
                if not self.fates.alive.any():
                    return False
                if number < steps:
                    self._leave_the_others(progress)
        return True

    def _one_step(self, size: int) -> None:
        if self._shelf and self.step == WATCHED:
            self.lanes.watch_step(size)
        else:
            self.lanes.take_step(size)

    def _look_for_divergence(self) -> None:
        steps = self.lanes.telemetry.steps[self.fates.seen : self.step]
        self.fates.look(steps.cpu().numpy(), self.places, self.lanes.clipping.refuses)

    def _leave_the_others(self, progress: Progress) -> None:
        """Go on with those that are alive alone, if somebody has left and it pays."""
        alive = self.fates.alive[self.places]
        rest = self.schedule.steps - self.step
        if self._shelf is None or alive.all() or not rest or not self.lanes.can_leave:
            return
        first, start = self._since
        seconds = rest * (self._now() - start) / (self.step - first)
        workspace = self._shelf.narrower(self.work, int(alive.sum()), seconds, self._missed)
        if workspace is None:
            return
        # Some of the dead come along where there is room. The order stays, and with it the runs of lanes.
        chosen = np.sort(np.argsort(~alive, kind="stable")[: workspace.lanes])
        self._settle()
        progress(rest * (len(self.places) - len(chosen)))
        self.lanes = self.lanes.fewer(chosen.tolist(), workspace)
        self.places = self.places[chosen]
        self._begin()

    def _settle(self) -> None:
        """Bring what has become of those that still step forward to their places among all."""
        costs = [self.lanes.clipping.timed(lane) for lane in range(len(self.places))]
        self._rule_costs[:, self.places] += np.array(costs).T
        if self.lanes is not self.all:
            self.all.put(self.lanes, self.places.tolist())

    def _end_of_epoch(self, epoch: int, asking: Asking | None) -> None:
        last = epoch + 1 == self.schedule.epochs
        measured = self._measured(epoch, last)
        for name, value in measured.items():
            column = self.epochs.setdefault(name, [])
            column += [np.full(len(self.trials), np.nan)] * (epoch - len(column))
            column.append(value)
        if last:
            return
        losses = self.lanes.telemetry.steps[epoch * self.schedule.epoch_steps : self.step, LOSS]
        measured[LOSS_OF_EPOCH] = self._of_all(_array(losses).mean(0, dtype=np.float64))
        if self.stopping.measure:
            self.stopping.look(epoch + 1, measured, self.work, self.places)
        if asking:
            began = time.perf_counter()
            asking(epoch + 1, measured)
            self._waited += time.perf_counter() - began

    def _of_all(self, values: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
        """[..., lanes] of some, who are those that still step forward, as [..., lanes] of all; NaN of the others."""
        whole = np.full((*values.shape[:-1], len(self.trials)), np.nan, values.dtype)
        whole[..., self.places if places is None else places] = values
        return whole

    def _measured(self, epoch: int, last: bool) -> dict[str, np.ndarray]:
        """What the table of epochs says of one, beside what follows from its steps: [lanes] of each measure."""
        weights = lane_norms(block.view(block.shape[0], -1) for block in self.work.params.values())
        measured = {"grad/vanishing": self.lanes.telemetry.vanishing(), "weight_norm": weights}
        train = self.trials[0].train
        if self.work.parts["val"] is not None and (last or (epoch + 1) % train.evaluate_every == 0):
            names = (f"val/{name}" for name in train.measures)
            measured |= dict(zip(names, self.work.evaluate("val"), strict=True))
        return {name: self._of_all(_array(values)) for name, values in measured.items()}

    def _finals(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The measures of every part, [measures, lanes], and what its losses give away of each lane.

        They are those of lanes that went to their end; what else is there is not looked at.
        """
        fates = self.fates
        wanted = (fates.diverged_step == 0) & (fates.pruned_epoch == 0)
        together = fates.stopped_epoch.any() or not np.isin(np.flatnonzero(wanted), self.places).all()
        work, places = (self.all.work, np.arange(len(self.trials))) if together else (self.work, self.places)
        finals: dict[str, np.ndarray] = {}
        losses = {}
        for name, part in work.parts.items() if wanted.any() else ():
            if part is None:
                continue
            measures, outputs = work.evaluate.with_outputs(name)
            finals[name] = self._of_all(_array(measures), places)
            single = example_losses(work.network, outputs, part[1]) if name in (MEMBERS, OTHERS) else None
            if single is not None:
                losses[name] = single
        return finals, self._of_all(advantages(losses, len(places)), places)

    def _curves(self) -> dict[str, np.ndarray]:
        """[epochs, lanes] of each measure; NaN after the last epoch that it was measured in."""
        nothing = [np.full(len(self.trials), np.nan)]
        length = max(map(len, self.epochs.values()), default=0)
        return {name: np.stack(column + nothing * (length - len(column))) for name, column in self.epochs.items()}

    def _outcome(self, start: float) -> Outcome:
        self._settle()
        self.stopping.restore(self.all.work)
        finals, membership = self._finals()
        steps = self.all.telemetry.steps[: self.step]
        self.all.clipping.finish(steps)
        seconds, timings = self._rule_costs
        return Outcome(
            trials=self.trials,
            schedule=self.schedule,
            fresh=isinstance(self.work.dataset, Stream),
            steps=steps.cpu().numpy(),
            epochs=self._curves(),
            finals=finals,
            membership=membership,
            weights={name: block.cpu().numpy() for name, block in self.all.work.params.items()},
            diverged_step=self.fates.diverged_step,
            diverged_cause=self.fates.causes,
            stopped_epoch=self.fates.stopped_epoch,
            pruned_epoch=self.fates.pruned_epoch,
            rule_seconds=(seconds / np.maximum(timings, 1)).tolist(),
            seconds=self._now() - start,
        )


def _array(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.cpu().numpy().copy()
    return array
