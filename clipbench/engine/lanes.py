"""Lanes that step forward together: their tensors and batches, rules and optimizers, and what was measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch

from clipbench.core.trial import Trial
from clipbench.engine.clipping.groups import Clipping
from clipbench.engine.clipping.on_microbatches import PartClipping
from clipbench.engine.compiler.invariance import Watch
from clipbench.engine.gradients.workspace import Workspace
from clipbench.engine.inputs.batches import Schedule, source
from clipbench.engine.inputs.gradient_noise import Noise
from clipbench.engine.optimizer_groups import Optimizers
from clipbench.engine.telemetry import Telemetry

# A rule's own cost is measured at one step in so many.
TIMED_EVERY = 16


class Lanes:
    """Call it with a step's number in its epoch to take that step. The workspace holds their initial state."""

    def __init__(self, trials: Sequence[Trial], workspace: Workspace, schedule: Schedule) -> None:
        self.trials, self.work, self.schedule = trials, workspace, schedule
        self.step = 0
        self.steady = False  # as far as is known
        self._arrange()
        self.optimizers = Optimizers(trials, workspace, self.clipping, schedule.steps)
        self.source = source(schedule, workspace.dataset, workspace.like, workspace.seeds, workspace.device)

    def _arrange(self) -> None:
        """Make what has its places in the workspace."""
        work, steps = self.work, self.schedule.steps
        self.telemetry = Telemetry(steps, work.params, work.grads)
        given = (self.trials, work.params, work.grads, self.telemetry, steps)
        self.clipping: Clipping | PartClipping = PartClipping(*given, work.split) if work.split else Clipping(*given)
        law = self.trials[0].train.noise
        self.noise = Noise(law, *work.raw) if law else None

    def trace(self) -> None:
        """Make the programs of all sizes of batches, which is no part of a step's time."""
        for number in (0, self.schedule.epoch_steps - 1):
            self.work.batch(self.schedule.size(number))

    def fill(self, number: int) -> int:
        """Gather the batch of a step: its size."""
        size = self.schedule.size(number)
        self.source.fill(number, self.work.batch(size))
        return size

    def take_step(self, size: int) -> None:
        """One step on the batch that was gathered."""
        self.work.gradients(size)
        self._follow(size)

    def watch_step(self, size: int) -> None:
        """The same, which takes milliseconds longer, to see whether each lane would be the same among fewer."""
        watch = Watch(len(self.trials))
        with nullcontext() if self.work.loop_reason else watch:  # one after another each is what it is
            self.work.gradients(size)
        with watch:
            self._follow(size)
        self.steady = not (watch.unsteady or watch.drawn)

    def _follow(self, size: int) -> None:
        """Do what follows from the gradients."""
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

    @property
    def can_leave(self) -> bool:
        """Whether those that are left would go on elsewhere bit for bit as here.

        On a GPU they might not, and it would gain nothing: there a step takes about as long for fewer lanes.
        """
        if self.work.device.type != "cpu" or not self.steady or not self.optimizers.can_move:
            return False
        return self.work.evaluates_steadily

    def fewer(self, lanes: Sequence[int], workspace: Workspace) -> Lanes:
        """Some of them in a smaller workspace, each as it would have gone on here; these here take no more steps."""
        workspace.take(self.work, lanes)
        other = Lanes.__new__(Lanes)
        other.trials, other.work, other.schedule = [self.trials[lane] for lane in lanes], workspace, self.schedule
        other.step, other.steady = self.step, self.steady
        other._arrange()
        other.telemetry.take(self.telemetry, lanes, self.step)
        other.clipping.take(self.clipping, lanes, self.step)  # type: ignore[arg-type]  # a chunk has one kind of them
        if other.noise and self.noise:
            other.noise.take(self.noise)
        other.optimizers = self.optimizers.fewer(lanes, workspace, other.clipping)
        other.source = self.source.fewer(lanes)
        return other

    def put(self, other: Lanes, places: Sequence[int]) -> None:
        """Bring what has become of fewer lanes back to their places here."""
        self.step = other.step
        self.work.put(other.work, places)
        self.telemetry.put(other.telemetry, places, other.step)
        self.clipping.put(other.clipping, places, other.step)  # type: ignore[arg-type]
