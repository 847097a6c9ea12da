"""Checkpoints of a chunk in training, from which a training that was interrupted goes on bit for bit the same."""

from __future__ import annotations

import io
import os
import pickle
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from clipbench.core.trial import Trial
from clipbench.engine.model.python_state import Snapshot, changed, snapshot
from clipbench.engine.optimizers import OwnOptimizer
from clipbench.engine.state import State
from clipbench.errors import ClipbenchError, ClipbenchWarning
from clipbench.store import checkpoint_files
from clipbench.store.checkpoint_files import DamagedCheckpoint

# Between two writes: first little, so that one who is killed often gets on, then twice as much each time, up to a most.
# About as much is lost, with the block that is under way.
FIRST_SECONDS, MOST_SECONDS = 1.0, 10.0
SHARE = 0.015  # of the time of training, at most


class KeptTraining(Protocol):
    """What is kept of a chunk in training."""

    state: State
    trials: Sequence[Trial]

    @property
    def modules(self) -> Sequence[torch.nn.Module]:
        """The modules of lanes that are trained one after another."""

    @property
    def optimizers(self) -> Sequence[OwnOptimizer]:
        """The optimizers that are objects of torch, or of the user's."""

    def times(self) -> list[float]:
        """Return what was measured of the time that training takes."""

    def resume_times(self, times: Sequence[float]) -> None:
        """Go on with these."""


class Checkpoint:
    """The file of a chunk. Without a path nothing is kept."""

    # Set by a signal: the process is to keep what it has, and to end.
    is_asked = False

    def __init__(self, path: Path | None, engine: str = "") -> None:
        """`engine` is the way in which the steps are computed."""
        self._path, self._engine = path, engine
        self._seconds = FIRST_SECONDS
        self._due = time.monotonic() + self._seconds
        self._before: list[Snapshot] = []

    def resume(self, training: KeptTraining) -> None:
        """Put a training where its checkpoint was written, if there is a whole one of the same trials and machine."""
        if self._path is None:
            return
        self._before = [snapshot(module) for module in training.modules]
        try:
            header, content = checkpoint_files.read(self._path)
            if header["about"] != self._about(training):
                return
            kept = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (DamagedCheckpoint, OSError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError):
            return  # who starts the training has said what is damaged
        if kept["state"].keys() != training.state.saved_names:  # of another version of clipbench
            return
        training.state.load(kept["state"])
        for module, buffers in zip(training.modules, kept["buffers"], strict=True):
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        for own, optimizer in zip(training.optimizers, kept["optimizers"], strict=True):
            own.optimizer.load_state_dict(optimizer)
        training.resume_times(kept["times"])

    @property
    def is_due(self) -> bool:
        """Whether it is time to write the state, or the process is asked to end."""
        return self._path is not None and (Checkpoint.is_asked or time.monotonic() > self._due)

    def keep(self, training: KeptTraining) -> None:
        """Write the state; a process that is asked to end does so then."""
        began = time.monotonic()
        if not any(each.is_users for each in training.optimizers) and not self._has_changed(training):
            try:
                self._write(training)
            except ClipbenchError as error:  # a full disk: training goes on without
                warnings.warn(str(error), ClipbenchWarning, stacklevel=2)
        if Checkpoint.is_asked:
            os._exit(0)
        now = time.monotonic()
        self._seconds = min(2 * self._seconds, MOST_SECONDS)
        self._due = now + max(self._seconds, (now - began) / SHARE)

    def _write(self, training: KeptTraining) -> None:
        assert self._path is not None
        buffer = io.BytesIO()
        kept = {
            "state": training.state.save(),
            "buffers": [dict(module.named_buffers()) for module in training.modules],
            "optimizers": [each.optimizer.state_dict() for each in training.optimizers],
            "times": training.times(),
        }
        torch.save(kept, buffer)
        header = {"about": self._about(training), "step": training.state.step}
        checkpoint_files.write(self._path, header, buffer.getvalue())

    def _about(self, training: KeptTraining) -> dict[str, Any]:
        """Return what must be the same for a training to go on with the same numbers."""
        return {
            "trials": [trial.id for trial in training.trials],
            "engine": self._engine,
            "torch": torch.__version__,
            "cpu": torch.backends.cpu.get_cpu_capability(),
        }

    def _has_changed(self, training: KeptTraining) -> bool:
        """Whether a module that lanes are called by one after another has changed in itself beside its tensors."""
        for before, module in zip(self._before, training.modules, strict=True):
            tensors = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
            if set(changed(before, snapshot(module))) - tensors:
                return True
        return False


def write_when_asked() -> None:
    """Let a signal ask this process to write its checkpoint and to end."""
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, _ask)


def _ask(*_: object) -> None:
    Checkpoint.is_asked = True
