"""Which lanes are clipped together, and in which order; what a chunk's rules do to its gradients at each step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from time import perf_counter
from typing import Any

from torch import Tensor

from clipbench.core.trial import Component, Trial
from clipbench.engine.clipping.lane_runs import ElementRun, ModelRun, PlacesRun, Run, StepRun
from clipbench.engine.clipping.on_updates import Updates
from clipbench.engine.clipping.on_weights import WeightsRun
from clipbench.engine.clipping.rule import Rule
from clipbench.engine.model.stacked import Blocks
from clipbench.engine.telemetry import COSINE, POST, PRE, Telemetry
from clipbench.plugins import registry

Identity = tuple[str, ...]

OFF: Identity = ("off",)
# Lanes stand in this order, so that the rules which give one coefficient to a whole model are served at once.
ORDER = ("off", "model", "part", "tensor", "unit", "element", "weights", "step")
RUNS: dict[str, Callable[..., Run]] = {
    "model": ModelRun,
    "part": PlacesRun,  # of the model: `exclude` leaves the rest alone; or the whole of it, but by itself
    "tensor": PlacesRun,
    "unit": PlacesRun,
    "element": ElementRun,
    "weights": WeightsRun,
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
    if not plugin.clips or options.get("threshold", math.inf) is None:
        return OFF
    per = str(options.get("per") or plugin.facts["per"])
    place = "part" if per == "model" and (options.get("exclude") or is_late(clip)) else per
    if plugin.facts.get("on") == "weights":
        place = "weights"
    return place, clip.name, clip.source, repr(clip.without("threshold").options)


def is_late(clip: Component) -> bool:
    """Whether a rule is carried out on the optimizer's update, and not on the gradient."""
    return clip.as_dict().get("after") == "momentum"


def excluded(name: str, patterns: Sequence[str]) -> bool:
    """`head` names the module's parameters, `*.bias` any that match."""
    return any(fnmatchcase(name, pattern) or name.startswith(f"{pattern}.") for pattern in patterns)


class Clipping:
    """All the rules of a chunk: called before the optimizer's step, and `after_step`; they say what they did."""

    def __init__(
        self, trials: Sequence[Trial], params: Blocks | None, grads: Blocks, telemetry: Telemetry, steps: int
    ) -> None:
        self.runs: list[Run] = []
        self.refuses = [False] * len(trials)
        self._updates: Updates | None = None
        self._late: list[Run] = []  # on the updates
        self._off = [lane for lane, trial in enumerate(trials) if identity(trial.clip) == OFF]
        if params and any(is_late(trial.clip) for trial in trials):
            self._updates = Updates(params, steps)
        lanes = range(len(trials))
        # Rules on the whole model share a run: their coefficients are multiplied in at once.
        for place, group in itertools.groupby(lanes, lambda lane: _together(identity(trials[lane].clip))):
            members = list(group)
            chosen = slice(members[0], members[-1] + 1)
            arms = [trials[lane].clip for lane in members]
            names = _included(arms[0], list(grads))
            if place == OFF or not names:  # what is not excluded may be frozen
                continue
            make = RUNS[place[0]]
            if self._updates and is_late(arms[0]):
                updates = self._updates
                self._late.append(make(arms, chosen, names, updates.old, updates.blocks, updates.telemetry))
                continue
            run = make(arms, chosen, names, params, grads, telemetry)
            self.runs.append(run)
            self.refuses[chosen] = [run.refuses] * len(members)
        self.choosy = [run for run in self.runs if isinstance(run, StepRun)]
        self._weights = [run for run in self.runs if isinstance(run, WeightsRun)]
        for rule, _ in self._rules():
            rule.follow(trials[0].train.schedule, steps)
        self._early = [run for run in self.runs if not isinstance(run, WeightsRun)]

    def gather(self, examples: int, loss: Tensor) -> None:
        """There are no parts to bring together."""

    def __call__(self, examples: int, timed: bool = False) -> None:
        """Change the gradients in place."""
        _carry_out(self._early, timed)
        for run in self._weights:
            run.remember()
        if self._updates:
            self._updates.remember()

    def after_step(self, step: int, rates: Callable[[], Sequence[float]], timed: bool = False) -> None:
        """Change the updates and the weights; `rates` gives each lane's learning rate."""
        if self._updates:
            self._updates.measure(rates())
            _carry_out(self._late, timed)
            for run in self._late:
                self._updates.put_back(run)
            self._updates.keep(step)
        _carry_out(self._weights, timed)

    def finish(self, steps: Tensor) -> None:
        """Work out what the raw sums of all steps mean."""
        steps[:, POST, self._off] = steps[:, PRE, self._off]
        steps[:, COSINE, self._off] = 1.0
        for run in self.runs:
            run.finish(steps[:, :, run.lanes])
        for run in self._late:
            assert self._updates is not None
            self._updates.finish(run, steps[:, :, run.lanes])

    def take(self, other: Clipping, lanes: Sequence[int], steps: int) -> None:
        """Go on where the rules of another have come to, of whose lanes these are some."""
        served = {
            lane: (rule, row)
            for rule, theirs in other._rules()
            for row, lane in enumerate(range(theirs.start, theirs.stop))
        }
        for rule, mine in self._rules():
            rule.take([served[lane] for lane in lanes[mine]])
        if self._updates and other._updates:
            self._updates.telemetry.take(other._updates.telemetry, lanes, steps)

    def put(self, other: Clipping, lanes: Sequence[int], steps: int) -> None:
        """Bring what another has measured back to the places of its lanes here."""
        if self._updates and other._updates:
            self._updates.telemetry.put(other._updates.telemetry, lanes, steps)

    def timed(self, lane: int) -> tuple[float, int]:
        """Seconds that a lane's own rule took, and at how many steps that was measured."""
        for run in (*self.runs, *self._late):
            if run.lanes.start <= lane < run.lanes.stop:
                return run.seconds / run.count, run.timings
        return 0.0, 0

    def _rules(self) -> Iterator[tuple[Rule, slice]]:
        """All of them, each with its lanes."""
        for run in (*self.runs, *self._late):
            yield from run.rules


def _carry_out(runs: Iterable[Run], timed: bool) -> None:
    """One after another, adding up what each costs if it is asked for."""
    for run in runs:
        if not timed:
            run()
            continue
        start = perf_counter()
        run()
        run.seconds += perf_counter() - start
        run.timings += 1


def _together(rule: Identity) -> tuple[Any, ...]:
    return ("model",) if rule[0] == "model" else rule


def _included(arm: Component, names: list[str]) -> list[str]:
    patterns = arm.as_dict().get("exclude") or ()
    return [name for name in names if not excluded(name, patterns)]  # type: ignore[arg-type]
