"""Which lanes are clipped together, and in which order; what a chunk's rules do to its gradients at each step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from time import perf_counter
from typing import Any

from torch import Tensor

from clipbench import registry
from clipbench.engine.blocks import Blocks
from clipbench.engine.runs import ElementRun, ModelRun, PlacesRun, Run, StepRun
from clipbench.engine.telemetry import COSINE, POST, PRE, Telemetry
from clipbench.trial import Component, Trial

Identity = tuple[str, ...]

OFF: Identity = ("off",)
# Lanes stand in this order, so that the rules which give one coefficient to a whole model are served at once.
ORDER = ("off", "model", "part", "tensor", "unit", "element", "step")
RUNS: dict[str, Callable[..., Run]] = {
    "model": ModelRun,
    "part": PlacesRun,  # of the model: `exclude` leaves the rest alone
    "tensor": PlacesRun,
    "unit": PlacesRun,
    "element": ElementRun,
    "step": StepRun,
}


def sort_key(trial: Trial) -> tuple[int, Identity, float]:
    """Where a lane stands in its chunk."""
    rule = identity(trial.clip)
    return ORDER.index(rule[0]), rule, trial.threshold or 0.0


def identity(clip: Component) -> Identity:
    """What lanes must share to be clipped by one call of a rule: everything but the threshold."""
    options = clip.as_dict()
    plugin = registry.of("strategy", clip)
    if clip.name == "none" or options.get("threshold", math.inf) is None:
        return OFF
    per = str(options.get("per") or plugin.facts["per"])
    place = "part" if per == "model" and options.get("exclude") else per
    return place, clip.name, clip.source, repr(clip.without("threshold").options)


def excluded(name: str, patterns: Sequence[str]) -> bool:
    """`head` names the module's parameters, `*.bias` any that match."""
    return any(fnmatchcase(name, pattern) or name.startswith(f"{pattern}.") for pattern in patterns)


class Clipping:
    """All the rules of a chunk. Calling it changes the gradients in place and fills in what they did."""

    def __init__(self, trials: Sequence[Trial], params: Blocks, grads: Blocks, telemetry: Telemetry) -> None:
        self.runs: list[Run] = []
        self.refuses = [False] * len(trials)
        self._off = [lane for lane, trial in enumerate(trials) if identity(trial.clip) == OFF]
        lanes = range(len(trials))
        # Rules on the whole model share a run: their coefficients are multiplied in at once.
        for place, group in itertools.groupby(lanes, lambda lane: _together(identity(trials[lane].clip))):
            members = list(group)
            chosen = slice(members[0], members[-1] + 1)
            arms = [trials[lane].clip for lane in members]
            names = _included(arms[0], list(grads))
            if place == OFF or not names:  # what is not excluded may be frozen
                continue
            run = RUNS[place[0]](arms, chosen, names, params, grads, telemetry)
            self.runs.append(run)
            self.refuses[chosen] = [run.refuses] * len(members)

    def __call__(self) -> None:
        for run in self.runs:
            run()

    def finish(self, steps: Tensor) -> None:
        """Work out what the raw sums of all steps mean."""
        steps[:, POST, self._off] = steps[:, PRE, self._off]
        steps[:, COSINE, self._off] = 1.0
        for run in self.runs:
            run.finish(steps[:, :, run.lanes])

    def timed(self) -> None:
        """The same, adding up what each run costs."""
        for run in self.runs:
            start = perf_counter()
            run()
            run.seconds += perf_counter() - start
            run.timings += 1

    def step_seconds(self, lane: int) -> float:
        """What a lane's own rule costs it per step."""
        for run in self.runs:
            if run.lanes.start <= lane < run.lanes.stop and run.timings:
                return run.seconds / run.timings / run.count
        return 0.0


def _together(rule: Identity) -> tuple[Any, ...]:
    return ("model",) if rule[0] == "model" else rule


def _included(arm: Component, names: list[str]) -> list[str]:
    patterns = arm.as_dict().get("exclude") or ()
    return [name for name in names if not excluded(name, patterns)]  # type: ignore[arg-type]
