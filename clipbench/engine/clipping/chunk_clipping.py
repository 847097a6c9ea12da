"""The clipping of a chunk: how lanes are ordered and grouped by rule, and what their rules do at each step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from time import perf_counter
from typing import Any

from torch import Tensor

from clipbench.core.trial import Component, Trial
from clipbench.engine.clipping.lane_groups import ElementGroup, LaneGroup, ModelGroup, PlacesGroup, StepGroup, place_of
from clipbench.engine.clipping.on_updates import OptimizerUpdates
from clipbench.engine.clipping.on_weights import WeightsGroup
from clipbench.engine.clipping.rule import Rule
from clipbench.engine.model.stacked import StackedTensors
from clipbench.engine.telemetry import COSINE, POST, PRE, Telemetry
from clipbench.plugins import registry

GroupingKey = tuple[str, ...]

OFF: GroupingKey = ("off",)
# The order of lanes. Rules that give one coefficient to a whole model are consecutive, so that they share a group.
ORDER = ("off", "model", "part", "tensor", "unit", "element", "weights", "step")
GROUPS: dict[str, Callable[..., LaneGroup]] = {
    "model": ModelGroup,
    "part": PlacesGroup,  # a part of the model, because of `exclude`; or the whole model, but in a group of its own
    "tensor": PlacesGroup,
    "unit": PlacesGroup,
    "element": ElementGroup,
    "weights": WeightsGroup,
    "step": StepGroup,
}


def sort_key(trial: Trial) -> tuple[int, GroupingKey, float]:
    """Return the key that sorts the lanes of a chunk."""
    key = grouping_key(trial.clip)
    return ORDER.index(key[0]), key, trial.threshold or 0.0


def grouping_key(clip: Component) -> GroupingKey:
    """Return what lanes must share to be clipped by one call of a rule: everything except the threshold."""
    options = clip.as_dict()
    plugin = registry.of("strategy", clip)
    if not plugin.clips or options.get("threshold", math.inf) is None:
        return OFF
    per = place_of(clip)
    place = "part" if per == "model" and (options.get("exclude") or clips_updates(clip)) else per
    if plugin.facts.get("on") == "weights":
        place = "weights"
    return place, clip.name, clip.source, repr(clip.without("threshold").options)


def clips_updates(clip: Component) -> bool:
    """Whether a rule clips the optimizer's update instead of the gradient."""
    return clip.as_dict().get("after") == "momentum"


def excluded(name: str, patterns: Sequence[str]) -> bool:
    """Whether a parameter is excluded: `head` names the parameters of a module, `*.bias` all that match."""
    return any(fnmatchcase(name, pattern) or name.startswith(f"{pattern}.") for pattern in patterns)


class ChunkClipping:
    """The rules of a chunk: called before the optimizers step; `after_step` is called afterwards."""

    def __init__(
        self,
        trials: Sequence[Trial],
        params: StackedTensors | None,
        grads: StackedTensors,
        telemetry: Telemetry,
        steps: int,
    ) -> None:
        self.groups: list[LaneGroup] = []
        self.refuses = [False] * len(trials)
        self._updates: OptimizerUpdates | None = None
        self._on_updates: list[LaneGroup] = []
        self._off = [lane for lane, trial in enumerate(trials) if grouping_key(trial.clip) == OFF]
        if params and any(clips_updates(trial.clip) for trial in trials):
            self._updates = OptimizerUpdates(params, steps)
        # Rules on the whole model share a group: their coefficients are multiplied in one operation.
        for key, run in itertools.groupby(range(len(trials)), lambda lane: _shared(grouping_key(trials[lane].clip))):
            members = list(run)
            chosen = slice(members[0], members[-1] + 1)
            arms = [trials[lane].clip for lane in members]
            names = _included(arms[0], list(grads))
            if key == OFF or not names:  # all parameters that are not excluded may be frozen
                continue
            make = GROUPS[key[0]]
            if self._updates and clips_updates(arms[0]):
                updates = self._updates
                self._on_updates.append(make(arms, chosen, names, updates.old, updates.values, updates.telemetry))
                continue
            group = make(arms, chosen, names, params, grads, telemetry)
            self.groups.append(group)
            self.refuses[chosen] = [group.refuses] * len(members)
        self.refusing = [group for group in self.groups if isinstance(group, StepGroup)]
        self._on_weights = [group for group in self.groups if isinstance(group, WeightsGroup)]
        self._on_gradients = [group for group in self.groups if not isinstance(group, WeightsGroup)]
        for rule, _ in self._rules():
            rule.follow(trials[0].train.schedule, steps)

    def gather(self, examples: int, loss: Tensor) -> None:
        """Do nothing: there are no microbatches to average."""

    def __call__(self, examples: int, timed: bool = False) -> None:
        """Change the gradients in place."""
        _clip(self._on_gradients, timed)
        for group in self._on_weights:
            group.store_weights()
        if self._updates:
            self._updates.store_weights()

    def after_step(self, step: int, rates: Callable[[], Sequence[float]], timed: bool = False) -> None:
        """Change the updates and the weights; `rates` returns the learning rate of each lane."""
        if self._updates:
            self._updates.measure(rates())
            _clip(self._on_updates, timed)
            for group in self._on_updates:
                self._updates.apply(group)
            self._updates.store_step(step)
        _clip(self._on_weights, timed)

    def finish(self, steps: Tensor) -> None:
        """Compute the values of the columns from the raw sums of all steps."""
        steps[:, POST, self._off] = steps[:, PRE, self._off]
        steps[:, COSINE, self._off] = 1.0
        for group in self.groups:
            group.finish(steps[:, :, group.lanes])
        for group in self._on_updates:
            assert self._updates is not None
            self._updates.finish(group, steps[:, :, group.lanes])

    def copy_from(self, other: ChunkClipping, lanes: Sequence[int], steps: int) -> None:
        """Continue with the state of some lanes of another, after so many steps."""
        rows = {
            lane: (rule, row)
            for rule, theirs in other._rules()
            for row, lane in enumerate(range(theirs.start, theirs.stop))
        }
        for rule, mine in self._rules():
            rule.copy_from([rows[lane] for lane in lanes[mine]])
        if self._updates and other._updates:
            self._updates.telemetry.copy_from(other._updates.telemetry, lanes, steps)

    def copy_back(self, other: ChunkClipping, lanes: Sequence[int], steps: int) -> None:
        """Copy the statistics of another back to the positions of its lanes here."""
        if self._updates and other._updates:
            self._updates.telemetry.copy_back(other._updates.telemetry, lanes, steps)

    def timed(self, lane: int) -> tuple[float, int]:
        """Return the seconds that a lane's own rule took, and the number of steps at which that was measured."""
        for group in (*self.groups, *self._on_updates):
            if group.lanes.start <= lane < group.lanes.stop:
                return group.seconds / group.count, group.timings
        return 0.0, 0

    def _rules(self) -> Iterator[tuple[Rule, slice]]:
        """Yield all rules, each with its lanes."""
        for group in (*self.groups, *self._on_updates):
            yield from group.rules


def _clip(groups: Iterable[LaneGroup], timed: bool) -> None:
    """Clip one group after another; add up the time of each if `timed`."""
    for group in groups:
        if not timed:
            group()
            continue
        start = perf_counter()
        group()
        group.seconds += perf_counter() - start
        group.timings += 1


def _shared(key: GroupingKey) -> tuple[Any, ...]:
    return ("model",) if key[0] == "model" else key


def _included(arm: Component, names: list[str]) -> list[str]:
    patterns = arm.as_dict().get("exclude") or ()
    return [name for name in names if not excluded(name, patterns)]  # type: ignore[arg-type]
