"""The `clip` object that a training script gets: it clips, takes the optimizer's steps, and records what happened."""

from __future__ import annotations

import math
import os
import random
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from clipbench.clipper import ClipInfo
from clipbench.core.trial import Trial
from clipbench.plugins import registry
from clipbench.scripts import fingerprints, own_clipping
from clipbench.scripts.attached_pair import AttachedPair, ScriptError
from clipbench.scripts.saved_state import SavedState
from clipbench.scripts.step_log import StepLog, plain_measures

Batch = TypeVar("Batch")
# Given the number of a report, from 1, and its measures, returns whether the trial is pruned.
Judge = Callable[[int, Mapping[str, float]], bool]

FIRST_BATCHES = 3  # whose hash is recorded


class Diverged(BaseException):
    """Ends a script whose loss, gradient or weights are no longer finite; no `except Exception` catches it."""


class ScriptClip:
    """Clips the gradients of a training script by the rule of its trial, and records the steps.

    Attributes
    ----------
    seed
        The seed of the trial.
    arm
        The rule and its threshold, as tables write them: `norm@1.0`.
    device
        Where to train: cpu, cuda or mps.
    """

    def __init__(
        self,
        trial: Trial,
        device: str = "cpu",
        saved: SavedState | None = None,
        judge: Judge | None = None,
        progress: Callable[[int], None] | None = None,
        ends_when_diverged: bool = True,
    ) -> None:
        script = trial.script.as_dict() if trial.script else {}
        limit = script.get("diverge_above")
        self.trial, self.seed, self.arm, self.device = trial, trial.seed, trial.arm, device
        self.pairs: dict[str, AttachedPair] = {}
        self.reports: list[dict[str, float]] = []
        self.report_steps: list[int] = []  # the number of steps at each report
        self.pruned = 0  # the report, from 1, after which the trial was pruned
        self.initial_weights: dict[str, str] = {}
        self.first_batches: list[str] = []
        self._saved, self._judge, self._progress = saved, judge, progress
        self._ends_when_diverged = ends_when_diverged
        self._refuses = bool(registry.of("strategy", trial.clip).facts.get("refuses"))
        self._is_error = bool(trial.clip.as_dict().get("error_if_nonfinite"))
        self._process = os.getpid()
        self._last_loss: weakref.ref[Tensor] | None = None  # which must not keep its graph
        self._began, self._waited = time.perf_counter(), 0.0
        self._seconds_before = 0.0  # that an earlier process of the trial took
        content = saved.read() if saved else None
        self._state: Any = content["state"] if content else None
        self._resumed = content["clip"] if content else None
        self.log = StepLog(limit if isinstance(limit, float) else None, self._resumed and self._resumed["log"])
        if self._resumed:
            self.reports, self.report_steps = list(self._resumed["reports"]), list(self._resumed["report_steps"])
            self.initial_weights = dict(self._resumed["initial_weights"])
            self.first_batches = list(self._resumed["first_batches"])
            self._seconds_before = float(self._resumed["seconds"])

    def seed_all(self) -> None:
        """Seed the generators of torch, numpy and `random`: all arms of a seed draw the same numbers."""
        torch.manual_seed(self.seed)
        np.random.seed(self.seed % 2**32)
        random.seed(self.seed)

    def attach(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: Any = None,
        *,
        name: str = "",
        steps: int = 0,
    ) -> None:
        """Clip the gradients of a model from now on.

        Parameters
        ----------
        model, optimizer
            The model whose gradients are clipped, and its optimizer.
        scaler
            A `torch.amp.GradScaler`, if the loss is scaled. It is updated after each step, unless several models share
            it: then the script calls `scaler.update()`, as it would without clipbench.
        name
            Tells several models apart, such as the two of a GAN.
        steps
            Number of steps of the whole training, for rules whose threshold follows a schedule.
        """
        self._check_process()
        if name in self.pairs:
            text = f"{name!r} is attached already" if name else "a model is attached already"
            raise ScriptError(f"{text}. Give each of several models a name: clip.attach(model, optimizer, name=...).")
        sharing = [pair for pair in self.pairs.values() if scaler is not None and pair.scaler is scaler]
        self.pairs[name] = AttachedPair(name, model, optimizer, scaler, self.trial.clip, steps)
        for pair in (*sharing, self.pairs[name]) if sharing else ():
            pair.updates_scaler = False
        own_clipping.watch(model)
        if self._resumed:
            self.pairs[name].clipper.load_state_dict(self._resumed["clippers"][name])
        else:
            self.initial_weights[name] = fingerprints.of_weights(model)

    def steps(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches of one pass, and hash the first ones."""
        for batch in batches:
            if len(self.first_batches) < FIRST_BATCHES:
                self.first_batches.append(fingerprints.of_batch(batch))
            yield batch

    def step(self, loss: Tensor | float, name: str = "") -> ClipInfo:
        """Take one step: unscale the gradient, clip it, take the optimizer's step or refuse it, and record all of it.

        The gradient is cleared afterwards.

        Parameters
        ----------
        loss
            The loss of the step, which is recorded.
        name
            Of the model, if several are attached.
        """
        if isinstance(loss, Tensor) and self._last_loss and loss is self._last_loss():
            raise ScriptError("clip.step was called twice with the same loss.")
        pair = self._pair(name)
        pair.unscale()
        pair.apply()
        return self._commit(pair, loss)

    def unscale(self, name: str = "") -> None:
        """The first part of `step`: divide the gradient by the scale of its loss, if it has one."""
        self._pair(name).unscale()

    def apply(self, name: str = "") -> ClipInfo | None:
        """The second part of `step`: clip the gradient. Return None for a rule that acts after the optimizer's step."""
        return self._pair(name).apply()

    def commit(self, loss: Tensor | float, name: str = "") -> ClipInfo:
        """The last part of `step`: take the optimizer's step, if the loop has not taken it itself, and record."""
        return self._commit(self._pair(name), loss)

    def report(self, measures: Mapping[str, float]) -> bool:
        """Record measures such as `val/loss` at this step; return whether a search has pruned the trial.

        A script that is pruned returns at once.
        """
        self._check_process()
        found = plain_measures(measures, "clip.report")
        self._look_at_weights()
        self._look()
        self.reports.append(found)
        self.report_steps.append(len(self.log))
        if self._judge and not self.pruned:
            began = time.perf_counter()
            losses = self.log.rows()[:, 0][self._last_report() :]
            loss = {"train/loss": float(losses.mean())} if len(losses) else {}
            if self._judge(len(self.reports), loss | found):
                self.pruned = len(self.reports)
            self._waited += time.perf_counter() - began
        return self.pruned > 0

    def save(self, state: Any) -> None:
        """Keep what the loop goes on from if the process is killed: tensors, numbers, text, lists and mappings."""
        if self._saved is None:
            return
        self._saved.write(
            state,
            {
                "log": self.log.state(),
                "reports": self.reports,
                "report_steps": self.report_steps,
                "initial_weights": self.initial_weights,
                "first_batches": self.first_batches,
                "seconds": self.seconds,
                "clippers": {name: pair.clipper.state_dict() for name, pair in self.pairs.items()},
            },
        )

    def resume(self) -> Any:
        """Return the state that was saved last, and set all random generators as they were; None at the start."""
        if self._saved is not None and self._resumed:
            self._saved.restore_generators()
        return self._state

    @property
    def seconds(self) -> float:
        """The time that the trial has taken, without that in which it waited for others."""
        return self._seconds_before + time.perf_counter() - self._began - self._waited

    @property
    def diverged_step(self) -> int:
        """The step at which the trial has diverged, from 1; 0 if it has not."""
        return int(self.log.status.diverged_step[0])

    def finish(self) -> None:
        """Check the last steps, after which there was no loss that shows what became of the weights."""
        self._look_at_weights()
        self._look()

    def _commit(self, pair: AttachedPair, loss: Tensor | float) -> ClipInfo:
        if _is_broken(loss):
            self._look_at_weights()
        info = pair.commit()
        self._last_loss = weakref.ref(loss) if isinstance(loss, Tensor) else None
        assert info.statistics is not None
        self.log.add(loss, info.statistics, pair.name)
        if self._progress:
            self._progress(1)
        if self.log.is_suspicious():
            self._look()
        return info

    def _look_at_weights(self) -> None:
        """Note it if the last step has left weights that are not finite."""
        if not all(pair.weights_are_finite() for pair in self.pairs.values()):
            self.log.mark_weights()

    def _look(self) -> None:
        """End the script if it has diverged."""
        scaled = [name for name, pair in self.pairs.items() if pair.scaler is not None]
        if self.log.check(self._refuses, self._is_error, scaled) and self._ends_when_diverged:
            raise Diverged

    def _last_report(self) -> int:
        """The number of steps at the report before the last one."""
        return self.report_steps[-2] if len(self.report_steps) > 1 else 0

    def _pair(self, name: str) -> AttachedPair:
        self._check_process()
        if name in self.pairs:
            return self.pairs[name]
        known = ", ".join(repr(each) for each in self.pairs if each)
        if not self.pairs:
            raise ScriptError("no model is attached. Call clip.attach(model, optimizer) before the first step.")
        if not name:
            raise ScriptError(f"several models are attached. Say which: clip.step(loss, name=...), of {known}.")
        raise ScriptError(f"no model {name!r} is attached. Attached: {known or 'one without a name'}.")

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ScriptError("clip was used in a process that the script has forked; only the first one can train.")


def _is_broken(loss: Tensor | float) -> bool:
    """Whether a loss is not finite; False on a GPU, which would have to be waited for."""
    if isinstance(loss, Tensor):
        return loss.device.type == "cpu" and not math.isfinite(loss.item())
    return not math.isfinite(loss)


def measures_at_end(returned: Any) -> dict[str, float]:
    """Return what `main` returned as numbers; raise ScriptError if it returned nothing."""
    if returned is None:
        raise ScriptError('main returned nothing. Return what was measured, such as {"test/loss": 0.5}.')
    found = plain_measures(returned, "main returned")
    if not found:
        raise ScriptError('main returned no measure. Return for example {"test/loss": 0.5}.')
    return found
