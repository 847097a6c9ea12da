"""One rule, called with the recorded statistics of each step at given thresholds: how often it fires, what it leaves.

All steps of all trials are one batch of lanes. A rule with a state has a lane for every trial and threshold and gets
the steps in their order: by compiled kernels where there are any, else one call a step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clipbench.compiler.native_program import Run, TensorAxes
from clipbench.core.trial import Component
from clipbench.engine.clipping.rule import Memory, initial_state, place_of, rule_options
from clipbench.engine.lane_seeds import LaneSeeds
from clipbench.engine.lowering import Lowered
from clipbench.pilot.results import REPLAYED, RecordedSteps
from clipbench.plugins import registry
from clipbench.plugins.registry import Plugin

# So many numbers are used to search for a threshold, and all for its final share.
SAMPLED = 2**17
# To search for a threshold, a rule with a state gets so many steps of a trial.
SEARCHED = 2**11
STRETCHES = 4
SMALLEST = 1e-300

Statistics = dict[str, Tensor]  # of steps or lanes, [.., places or elements]


class Effect(NamedTuple):
    """The effect of a rule at one threshold."""

    fired: float  # the share of steps, places or elements that it clips, by `unit_of`
    kept: float  # the part of the norm that it leaves at the median step
    left: float  # the same over the steps at which it fires; NaN if there are none


class Replay:
    """Calls one rule on recorded statistics; call it with thresholds to get their effects."""

    def __init__(self, rule: Component, plugin: Plugin, seen: Sequence[RecordedSteps], p: float) -> None:
        self._plugin, self._p = plugin, p
        self._init = plugin.facts["init"]
        self._refuses = plugin.facts.get("refuses", False)
        self._on_weights = plugin.facts.get("on") == "weights"
        self._options = rule_options(rule, plugin)
        self.per = place_of(rule)
        self._seen = [self._statistics(recorded) for recorded in seen]
        if self._init:
            self._seen = [part for seen in self._seen for part in _stretches(seen, REPLAYED)]
        here = {"step": "model", "element": "model"}.get(self.per, self.per)
        self._sizes = torch.from_numpy(seen[0].sizes[here]).double()

    def sampled(self) -> Replay:
        """Return a replay of a part of the steps, evenly spaced; of a rule with a state, of stretches of them."""
        few = copy.copy(self)
        if self._init:
            few._seen = [part for seen in self._seen for part in _stretches(seen, SEARCHED)]
            return few
        numbers = sum(max(array.numel() for array in seen.values()) for seen in self._seen)
        every = math.ceil(numbers / SAMPLED)
        few._seen = [{name: array[::every] for name, array in seen.items()} for seen in self._seen]
        return few

    def __call__(self, thresholds: Sequence[float]) -> list[Effect]:
        if self._init:
            return self._in_order(thresholds)
        statistics = {name: torch.cat([seen[name] for seen in self._seen]) for name in self._seen[0]}
        lanes = len(next(iter(statistics.values())))
        answers = []
        for threshold in thresholds:
            column = torch.full((lanes, 1), threshold, dtype=torch.float64)
            answers.append(_summary(*self._effect(self._called(statistics, column, 1), statistics)))
        return answers

    def _in_order(self, thresholds: Sequence[float]) -> list[Effect]:
        """Return the effects of a rule with a state, whose lanes are those of a trial, then those of the next."""
        lengths = [len(seen["model_n"]) for seen in self._seen]
        steps, many = max(lengths), len(thresholds)
        # NaN after the end of a trial.
        padded = {name: torch.stack([_padded(seen[name], steps) for seen in self._seen], 1) for name in self._seen[0]}
        column = torch.tensor(thresholds, dtype=torch.float64).repeat(len(lengths)).unsqueeze(1)
        places = next(padded[name] for name in ("new", "g", "n", "w") if name in padded)
        state = initial_state(self._init, self._options, places[0].repeat_interleave(many, 0))
        found = self._compiled(padded, column, state) or self._step_by_step(padded, column, state)
        fired, kept = (values.view(steps, len(lengths), many) for values in found)
        recorded = torch.arange(steps).unsqueeze(1) < torch.tensor(lengths)
        return [_summary(fired[..., lane][recorded], kept[..., lane][recorded]) for lane in range(many)]

    def _compiled(self, padded: Statistics, column: Tensor, state: Memory) -> tuple[Tensor, Tensor] | None:
        """Return for each step and lane the share and the part of the norm; None where there are no kernels."""
        names, memory = [name for name in padded if name in self._used], {k: v.clone() for k, v in state.items()}
        steps, trials = next(iter(padded.values())).shape[:2]
        fired, kept = (torch.zeros(steps, len(column), dtype=torch.float64) for _ in range(2))
        numbers = torch.arange(1.0, steps + 1, dtype=torch.float64).unsqueeze(1)
        of_trial, of_lane, table = TensorAxes(None, seed=1, step=0), TensorAxes(), TensorAxes(1, step=0)
        seeds = LaneSeeds(len(column), column.device)
        seeds.set([lane * trials // len(column) for lane in range(len(column))])

        def one_step(threshold: Tensor, number: Tensor, *values: Tensor) -> list[Tensor]:
            given = [value.unsqueeze(0) for value in values]
            statistics = dict(zip(names, given, strict=False))
            before = dict(zip(memory, given[len(names) :], strict=True))
            effect, after = self._stepped(statistics, threshold.unsqueeze(0), number, before)
            return [each.squeeze(0) for each in (*effect, *(after[name] for name in memory))]

        lowered = Lowered(
            one_step,
            [
                (column, of_lane),
                (numbers, TensorAxes(None, step=0)),
                *((padded[name], of_trial) for name in names),
                *((value, of_lane) for value in memory.values()),
            ],
            [(fired, table), (kept, table), *((value, of_lane) for value in memory.values())],
            range(len(column)),
            seeds=seeds,
        )
        if not lowered.native:
            return None
        for name, value in memory.items():
            value.copy_(state[name])
        Run([lowered.native], seeds.numbers)(range(len(column)), 0, steps)
        return fired, kept

    def _step_by_step(self, padded: Statistics, column: Tensor, state: Memory) -> tuple[Tensor, Tensor]:
        fired, kept = [], []
        steps, trials = next(iter(padded.values())).shape[:2]
        for step in range(steps):
            now = {name: table[step].repeat_interleave(len(column) // trials, 0) for name, table in padded.items()}
            effect, state = self._stepped(now, column, step + 1, state)
            fired.append(effect[0])
            kept.append(effect[1])
        return torch.stack(fired), torch.stack(kept)

    def _stepped(
        self, statistics: Statistics, threshold: Tensor, step: int | Tensor, state: Memory
    ) -> tuple[tuple[Tensor, Tensor], Memory]:
        *result, state = self._called(statistics, threshold, step, state=state)
        return self._effect(result[0] if len(result) == 1 else tuple(result), statistics), state

    @property
    def _used(self) -> frozenset[str]:
        """The statistics that the rule and its effect need."""
        return self._plugin.given | {"n", "w", "g", "new"}

    def _called(self, statistics: Statistics, threshold: Tensor, step: int | Tensor, **state: Any) -> Any:
        size = torch.ones(1, dtype=torch.float64) if self.per == "element" else self._sizes
        available = {**statistics, "step": step, "size": size, **state}
        given = {name: available[name] for name in self._plugin.given}
        given = {k: v.clone() if isinstance(v, Tensor) else v for k, v in given.items()}  # a rule may work in place
        return self._plugin.function(**given, **self._options, threshold=threshold)

    def _effect(self, result: Any, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Return for each lane the share of clipped elements, and the part of the norm that is left."""
        if self.per == "step":
            kept = result.flatten().double()
            return 1 - kept, kept
        if self.per == "element":
            old = statistics["new" if self._on_weights else "g"]
            changed = (result != old).double()
            return changed.amax(1) if self._refuses else changed.mean(1), result.norm(dim=1) / old.norm(dim=1).clamp(
                min=SMALLEST
            )
        coefficient, fired = result
        n = statistics["w" if self._on_weights else "n"]
        share = (fired * self._sizes).sum(1) / self._sizes.sum()
        return share, (coefficient * n).norm(dim=1) / n.norm(dim=1).clamp(min=SMALLEST)

    def _statistics(self, recorded: RecordedSteps) -> Statistics:
        """Return the statistics that a rule may use, [recorded steps, places or elements]."""
        whole, elements = recorded.places["model"], recorded.elements
        norm = "m" if math.isinf(self._p) else "n"
        known: dict[str, np.ndarray] = {"model_n": whole[norm], "model_m": whole["m"]}
        if self.per == "element":
            g, w = np.abs(elements["g"]), np.abs(elements["new" if self._on_weights else "old"])
            known |= {**elements, "n": g, "m": g, "w": w}
        else:
            here = recorded.places["model" if self.per == "step" else self.per]
            known |= {"n": here[norm], "m": here["m"], "w": here["v" if self._on_weights else "w"]}
        return {name: torch.from_numpy(array) for name, array in known.items()}


def unit_of(rule: Component) -> str:
    """Return of what a share says how much is clipped: of steps, or of places or elements at all steps."""
    per = place_of(rule)
    refuses = registry.of("strategy", rule).facts.get("refuses")
    return "step" if per == "element" and refuses else per


def _stretches(seen: Statistics, most: int) -> Iterator[Statistics]:
    """Yield the steps of a trial; of more than `most`, some stretches at equal distances that have so many together."""
    steps, size = len(seen["model_n"]), most // STRETCHES
    if steps <= most:
        yield seen
        return
    for start in np.linspace(0, steps - size, STRETCHES).astype(int):
        yield {name: array[start : start + size] for name, array in seen.items()}


def _padded(array: Tensor, steps: int) -> Tensor:
    return torch.cat([array, array.new_full((steps - len(array), *array.shape[1:]), math.nan)])


def _summary(fired: Tensor, kept: Tensor) -> Effect:
    return Effect(float(fired.nanmean()), float(kept.nanmedian()), float(kept[fired > 0].nanmedian()))
