"""The training of a chunk of lanes from the first step to the last, and its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from clipbench.core.trial import Trial
from clipbench.datasets import Stream
from clipbench.engine import generators
from clipbench.engine.clipping.chunk_clipping import sort_key
from clipbench.engine.early_stop import EarlyStopping
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.engine.gradients.workspace_cache import FEWEST_LANES, WorkspaceCache
from clipbench.engine.inputs.batches import TrainingLength
from clipbench.engine.lane_status import LaneStatus
from clipbench.engine.lanes import Lanes
from clipbench.engine.membership_inference import MEMBERS, OTHERS, advantages, example_losses
from clipbench.engine.model.stacked import lane_norms
from clipbench.engine.pruning import ChoosePruned, Pruning
from clipbench.engine.telemetry import LOSS
from clipbench.engine.unmoved_weights import UnmovedWeights

Progress = Callable[[int], None]  # called with the number of lane-steps that were done

# Divergence is checked after so many steps, and at the end of an epoch.
CHECK_EVERY = 64
INVARIANCE_STEP = 1  # the step, from 0, at which the invariance of the lanes is checked; no rule is timed there
LOSS_OF_EPOCH = "train/loss"


@dataclass
class ChunkResult:
    """The result of training a chunk; lanes are in the order of `trials`."""

    trials: Sequence[Trial]
    length: TrainingLength
    fresh: bool  # the data are a stream: no example is seen twice, except by chance
    steps: np.ndarray  # [steps, statistics, lanes]
    epochs: dict[str, np.ndarray]  # [epochs, lanes]
    finals: dict[str, np.ndarray]  # part -> [measures, lanes]
    membership: np.ndarray  # [lanes], advantage of a membership inference attack
    weights: dict[str, np.ndarray]  # final weights, [lanes, *shape] of each tensor
    diverged_step: np.ndarray  # [lanes], from 1; 0: it did not diverge
    diverged_cause: list[str]
    stopped_epoch: np.ndarray  # [lanes], from 1; 0: it did not stop early
    pruned_epoch: np.ndarray  # [lanes], from 1; 0: it was not pruned
    rule_seconds: list[float]
    seconds: float

    def last_step(self, lane: int) -> int:
        """Return the last step that counts, from 1."""
        ended = int(self.stopped_epoch[lane] or self.pruned_epoch[lane]) * self.length.epoch_steps
        return int(self.diverged_step[lane]) or ended or len(self.steps)


def order(trials: Sequence[Trial]) -> list[Trial]:
    """Sort trials so that lanes of one optimizer are consecutive, and among them lanes of one rule."""
    return sorted(trials, key=lambda trial: (repr(trial.optimizer), *sort_key(trial), trial.seed))


def padded(trials: Sequence[Trial], lanes: int) -> list[Trial]:
    """Return the trials in order; the last one is repeated until there are enough lanes."""
    chosen = order(trials)
    return chosen + [chosen[-1]] * (max(lanes, FEWEST_LANES) - len(chosen))


class ChunkTraining:
    """A chunk in training: all of its lanes, and the lanes that are still being trained."""

    def __init__(self, trials: Sequence[Trial], workspace: Workspace, cache: WorkspaceCache | None = None) -> None:
        """With a cache, lanes move to narrower workspaces when others have ended."""
        self.trials = trials
        self.length = TrainingLength.of(trials[0].train, workspace.dataset)
        seeds = [trial.seed for trial in trials]
        workspace.start(seeds)
        self.all_lanes = self.lanes = Lanes(trials, workspace, self.length)
        self._unmoved = UnmovedWeights(self.lanes)
        self.positions = np.arange(len(trials))  # of `lanes` among all
        self.status = LaneStatus(len(trials), trials[0].train.diverge_above)
        self.early_stopping = EarlyStopping(trials[0].train, len(trials), self.status)
        self.epochs: dict[str, list[np.ndarray]] = {}
        self._cache = cache
        self._missed: dict[WorkspaceShape, float] = {}  # seconds that a workspace not in the cache would have saved
        self._since = 0, 0.0  # the step and the time at which `lanes` began
        self._waited = 0.0  # seconds, for decisions on pruning
        self._rule_costs = np.zeros((2, len(trials)))  # seconds, and the number of steps that were timed

    @property
    def workspace(self) -> Workspace:
        return self.lanes.workspace

    @property
    def step(self) -> int:
        return self.lanes.step

    def run(self, progress: Progress, choose_pruned: ChoosePruned | None = None) -> ChunkResult:
        """Train until the last epoch, or until every lane has diverged, stopped or was pruned."""
        with generators.preserved():
            return self._run(progress, choose_pruned)

    def _run(self, progress: Progress, choose_pruned: ChoosePruned | None) -> ChunkResult:
        pruning = Pruning(choose_pruned, self.trials, self.status) if choose_pruned else None
        start = self._begin()
        for epoch in range(self.length.epochs):
            if not self._epoch(epoch, progress):
                break
            self._end_of_epoch(epoch, pruning)
            if not self.status.alive.any():
                break
            self._narrow_if_worthwhile(progress)
        progress((self.length.steps - self.step) * len(self.positions))
        if self._cache:
            self._cache.add_missed(self._missed)
        return self._result(start)

    def _begin(self) -> float:
        """Compile the programs, which is not counted as training time; then start the clock."""
        self.lanes.compile()
        self._since = self.step, self._now()
        return self._since[1]

    def _now(self) -> float:
        """Return the time in seconds, without the time spent waiting for decisions on pruning."""
        return time.perf_counter() - self._waited

    def seconds_per_step(self, budget: float) -> float:
        """Return the mean time of a step of all lanes, over the steps that fit the budget in seconds, at least one."""
        size = self.lanes.fill(0)
        with generators.preserved():
            self.workspace.compute_gradients(size)  # compiles and warms up
            start, done = time.perf_counter(), 0
            while not done or (done < self.length.steps and time.perf_counter() - start < budget):
                self._one_step(size)
                done += 1
            return (time.perf_counter() - start) / done

    def rehearse(self, between_steps: Callable[[], None]) -> None:
        """Take two steps and evaluate every part of the data; raise what fails."""
        with generators.preserved():
            for _ in range(2):
                self._one_step(self.lanes.fill(0))
                between_steps()
            self._finals()

    def _epoch(self, epoch: int, progress: Progress) -> bool:
        """Train for one epoch; return whether any lane is still alive at its end."""
        steps = self.length.steps_in(epoch)
        for number in range(1, steps + 1):
            self._one_step(self.lanes.fill(number - 1))
            progress(len(self.positions))
            if number == steps or self.step % CHECK_EVERY == 0:
                self._check_divergence()
                if not self.status.alive.any():
                    return False
                if number < steps:
                    self._narrow_if_worthwhile(progress)
        return True

    def _one_step(self, size: int) -> None:
        if self._cache and self.step == INVARIANCE_STEP:
            self.lanes.take_step_checking_invariance(size)
        else:
            self.lanes.take_step(size)

    def _check_divergence(self) -> None:
        steps = self.lanes.telemetry.steps[self.status.checked_steps : self.step]
        self.status.check_divergence(steps.cpu().numpy(), self.positions, self.lanes.clipping.refuses)

    def _narrow_if_worthwhile(self, progress: Progress) -> None:
        """Continue in a narrower workspace if some lanes have ended and the move saves time."""
        alive = self.status.alive[self.positions]
        rest = self.length.steps - self.step
        if self._cache is None or alive.all() or not rest or not self.lanes.can_narrow:
            return
        first, start = self._since
        seconds = rest * (self._now() - start) / (self.step - first)
        workspace = self._cache.narrower(self.workspace, int(alive.sum()), seconds, self._missed)
        if workspace is None:
            return
        # Ended lanes fill the room that is left. The order of lanes is kept, and so are the groups of lanes.
        chosen = np.sort(np.argsort(~alive, kind="stable")[: workspace.lanes])
        self._copy_back()
        progress(rest * (len(self.positions) - len(chosen)))
        self.lanes = self.lanes.select(chosen.tolist(), workspace)
        self.positions = self.positions[chosen]
        self._begin()

    def _copy_back(self) -> None:
        """Copy the state of the lanes in training to their positions among all lanes."""
        costs = [self.lanes.clipping.timed(lane) for lane in range(len(self.positions))]
        self._rule_costs[:, self.positions] += np.array(costs).T
        if self.lanes is not self.all_lanes:
            self.all_lanes.copy_back(self.lanes, self.positions.tolist())

    def _end_of_epoch(self, epoch: int, pruning: Pruning | None) -> None:
        last = epoch + 1 == self.length.epochs
        measured = self._measured(epoch, last)
        for name, value in measured.items():
            column = self.epochs.setdefault(name, [])
            column += [np.full(len(self.trials), np.nan)] * (epoch - len(column))
            column.append(value)
        if last:
            return
        losses = self.lanes.telemetry.steps[epoch * self.length.epoch_steps : self.step, LOSS]
        measured[LOSS_OF_EPOCH] = self._for_all(_array(losses).mean(0, dtype=np.float64))
        if self.early_stopping.measure:
            self.early_stopping.update(epoch + 1, measured, self.workspace, self.positions)
        if pruning:
            began = time.perf_counter()
            pruning(epoch + 1, measured)
            self._waited += time.perf_counter() - began

    def _for_all(self, values: np.ndarray, positions: np.ndarray | None = None) -> np.ndarray:
        """Spread [..., lanes] of the lanes in training over all lanes; NaN for the others."""
        whole = np.full((*values.shape[:-1], len(self.trials)), np.nan, values.dtype)
        whole[..., self.positions if positions is None else positions] = values
        return whole

    def _measured(self, epoch: int, last: bool) -> dict[str, np.ndarray]:
        """Return the measures at the end of an epoch, [lanes] of each, without those that follow from its steps."""
        weights = lane_norms(block.view(block.shape[0], -1) for block in self.workspace.params.values())
        measured = {"grad/vanishing": self.lanes.telemetry.vanishing(), "weight_norm": weights}
        train = self.trials[0].train
        if self.workspace.parts["val"] is not None and (last or (epoch + 1) % train.evaluate_every == 0):
            names = (f"val/{name}" for name in train.measures)
            measured |= dict(zip(names, self.workspace.evaluate("val"), strict=True))
        return {name: self._for_all(_array(values)) for name, values in measured.items()}

    def _finals(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the measures of every part, [measures, lanes], and the membership advantage of each lane.

        Only those of lanes that trained to their end are used.
        """
        status = self.status
        wanted = (status.diverged_step == 0) & (status.pruned_epoch == 0)
        together = status.stopped_epoch.any() or not np.isin(np.flatnonzero(wanted), self.positions).all()
        lanes, positions = (self.all_lanes, np.arange(len(self.trials))) if together else (self.lanes, self.positions)
        workspace = lanes.workspace
        finals: dict[str, np.ndarray] = {}
        losses = {}
        for name, part in workspace.parts.items() if wanted.any() else ():
            if part is None:
                continue
            measures, outputs = workspace.evaluate.with_outputs(name)
            finals[name] = self._for_all(_array(measures), positions)
            single = example_losses(workspace.network, outputs, part[1]) if name in (MEMBERS, OTHERS) else None
            if single is not None:
                losses[name] = single
        return finals, self._for_all(advantages(losses, len(positions)), positions)

    def _curves(self) -> dict[str, np.ndarray]:
        """Return [epochs, lanes] of each measure; NaN after the last epoch in which it was measured."""
        nothing = [np.full(len(self.trials), np.nan)]
        length = max(map(len, self.epochs.values()), default=0)
        return {name: np.stack(column + nothing * (length - len(column))) for name, column in self.epochs.items()}

    def _result(self, start: float) -> ChunkResult:
        self._copy_back()
        self.early_stopping.restore(self.all_lanes.workspace)
        finals, membership = self._finals()
        steps = self.all_lanes.telemetry.steps[: self.step]
        self.all_lanes.clipping.finish(steps)
        self._unmoved.refuse(self.all_lanes, steps, self.status.diverged_step)
        seconds, timings = self._rule_costs
        return ChunkResult(
            trials=self.trials,
            length=self.length,
            fresh=isinstance(self.workspace.dataset, Stream),
            steps=steps.cpu().numpy(),
            epochs=self._curves(),
            finals=finals,
            membership=membership,
            weights={name: block.cpu().numpy() for name, block in self.all_lanes.workspace.params.items()},
            diverged_step=self.status.diverged_step,
            diverged_cause=self.status.causes,
            stopped_epoch=self.status.stopped_epoch,
            pruned_epoch=self.status.pruned_epoch,
            rule_seconds=(seconds / np.maximum(timings, 1)).tolist(),
            seconds=self._now() - start,
        )


def _array(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.cpu().numpy().copy()
    return array
