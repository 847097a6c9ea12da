"""Lanes that are trained together: their tensors, batches, rules, optimizers and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch

from clipbench.core.trial import Trial
from clipbench.engine.clipping.chunk_clipping import ChunkClipping
from clipbench.engine.clipping.on_microbatches import MicrobatchClipping
from clipbench.engine.compiler.invariance import InvarianceCheck
from clipbench.engine.gradients.workspace import Workspace
from clipbench.engine.inputs.batches import TrainingLength, batch_source
from clipbench.engine.inputs.gradient_noise import GradientNoise
from clipbench.engine.stacked_optimizers import Optimizers
from clipbench.engine.telemetry import Telemetry

# The cost of a rule is measured at one step in so many.
TIMED_EVERY = 16


class Lanes:
    """Fill a batch, then take a step on it. The workspace holds the initial state of the lanes."""

    def __init__(self, trials: Sequence[Trial], workspace: Workspace, length: TrainingLength) -> None:
        self.trials, self.workspace, self.length = trials, workspace, length
        self.step = 0
        self.invariant = False  # whether a lane was found to be the same among fewer lanes
        self._bind_to_workspace()
        self.optimizers = Optimizers(trials, workspace, self.clipping.refusing, length.steps)
        self.source = batch_source(length, workspace.dataset, workspace.like, workspace.seeds, workspace.device)

    def _bind_to_workspace(self) -> None:
        """Make the objects that hold views of the workspace's tensors."""
        workspace, steps = self.workspace, self.length.steps
        self.telemetry = Telemetry(steps, workspace.params, workspace.grads)
        given = (self.trials, workspace.params, workspace.grads, self.telemetry, steps)
        self.clipping: ChunkClipping | MicrobatchClipping = (
            MicrobatchClipping(*given, workspace.microbatches) if workspace.microbatches else ChunkClipping(*given)
        )
        law = self.trials[0].train.noise
        self.noise = GradientNoise(law, *workspace.raw_gradients) if law else None

    def compile(self) -> None:
        """Compile the programs for all sizes of batches."""
        for number in (0, self.length.epoch_steps - 1):
            self.workspace.batch(self.length.size(number))

    def fill(self, number: int) -> int:
        """Gather the batch of a step, given its number in the epoch; return its size."""
        size = self.length.size(number)
        self.source.fill(number, self.workspace.batch(size))
        return size

    def take_step(self, size: int) -> None:
        """Take one step on the batch that was gathered."""
        self.workspace.compute_gradients(size)
        self._apply_gradients(size)

    def take_step_checking_invariance(self, size: int) -> None:
        """Take one step and check whether each lane would be the same among fewer; takes milliseconds longer."""
        check = InvarianceCheck(len(self.trials))
        with nullcontext() if self.workspace.loop_reason else check:  # looped lanes do not influence one another
            self.workspace.compute_gradients(size)
        with check:
            self._apply_gradients(size)
        self.invariant = not (check.position_dependent or check.random)

    def _apply_gradients(self, size: int) -> None:
        """Measure and clip the gradients, and let the optimizers step."""
        with torch.inference_mode():  # every operator costs a fifth less without autograd's bookkeeping
            if self.noise:
                self.noise()
            self.clipping.gather(size, self.workspace.loss)
            self.telemetry.before(self.workspace.loss)
            timed = self.step % TIMED_EVERY == 0 and self.workspace.device.type == "cpu"
            self.clipping(size, timed)
            self.optimizers.step()
            self.clipping.after_step(self.step, self.optimizers.rates, timed)
            self.telemetry.after(self.step)
        self.step += 1

    @property
    def can_narrow(self) -> bool:
        """Whether some of the lanes would continue bit for bit the same in a narrower workspace.

        Never on a GPU: they might not, and a step takes about as long for fewer lanes there.
        """
        if self.workspace.device.type != "cpu" or not self.invariant or not self.optimizers.can_move:
            return False
        return self.workspace.evaluation_is_invariant

    def select(self, lanes: Sequence[int], workspace: Workspace) -> Lanes:
        """Move some of the lanes to a narrower workspace, where they continue; these lanes take no more steps."""
        workspace.copy_from(self.workspace, lanes)
        other = Lanes.__new__(Lanes)
        other.trials, other.workspace, other.length = [self.trials[lane] for lane in lanes], workspace, self.length
        other.step, other.invariant = self.step, self.invariant
        other._bind_to_workspace()
        other.telemetry.copy_from(self.telemetry, lanes, self.step)
        other.clipping.copy_from(self.clipping, lanes, self.step)  # type: ignore[arg-type]  # both are of one class
        if other.noise and self.noise:
            other.noise.copy_from(self.noise)
        other.optimizers = self.optimizers.select(lanes, workspace, other.clipping.refusing)
        other.source = self.source.select(lanes)
        return other

    def copy_back(self, other: Lanes, positions: Sequence[int]) -> None:
        """Copy the state of selected lanes back to their positions here."""
        self.step = other.step
        self.workspace.copy_back(other.workspace, positions)
        self.telemetry.copy_back(other.telemetry, positions, other.step)
        self.clipping.copy_back(other.clipping, positions, other.step)  # type: ignore[arg-type]
