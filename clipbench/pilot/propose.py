"""Thresholds for any rule, from the statistics of a pilot: found by calling the rule itself.

A rule is called with the statistics of each recorded step, at different thresholds. Larger thresholds clip less: the
threshold at which a rule fires on a given share of steps is found by bisection. For a rule that always fires, the part
of the norm that it leaves is used instead.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipbench.config.component_options import signature
from clipbench.core.trial import Component
from clipbench.engine.clipping.rule import initial_state, rule_options
from clipbench.errors import InputError, Place, Problem, UnknownName
from clipbench.pilot.results import GradientStatistics, Proposal, SuggestedThreshold
from clipbench.plugins import registry
from clipbench.plugins.registry import Plugin

FIRES = (0.9, 0.5, 0.1, 0.01)  # shares of steps or places
FIRES_ELEMENTS = (0.5, 0.1, 0.01, 0.001)  # of elements, half of which are usually tiny
KEEPS = (0.01, 0.1, 0.5, 0.9)  # parts of the norm
LOWEST, HIGHEST = 1e-30, 1e30
BISECTIONS = 60
# A rule with a state gets the steps in order, with a grid of thresholds at once, which is then refined.
GRID, ROUNDS = 32, 2
DIGITS = 3
# For a rule without a state, so many numbers are used to search for the threshold, and all for its final share.
SAMPLED = 2**17
UNITS = {"step": "steps", "model": "steps", "tensor": "tensors", "unit": "units", "element": "elements"}

Effect = tuple[float, float]  # the share on which a rule fires, and the part of the norm that it leaves at the median
FIRED, KEPT = 0, 1


def candidates(names: Sequence[str], folder: str) -> list[Component]:
    """Return the named strategies, or all that clip, with default options and without a threshold."""
    found, problems = [], []
    for name in names or [name for name, plugin in registry.catalogue("strategy").items() if plugin.clips]:
        try:
            found.append(_candidate(registry.find("strategy", name, folder), folder))
        except UnknownName as error:
            problems.append(Problem(Place(f"--strategy {name}"), error.text, error.remedy))
    if problems:
        raise InputError(problems)
    return found


def _candidate(plugin: Plugin, folder: str) -> Component:
    if "per" not in plugin.facts:
        remedy = "Decorate it with @clipbench.strategy(per=...)."
        raise UnknownName(f"{plugin.name} does not declare where it looks.", remedy)
    slots = [slot for slot in signature(plugin).values() if slot.name != "threshold"]
    options = {slot.name: slot.default for slot in slots if not slot.required and not slot.quiet}
    return Component.with_options(plugin.name, options, plugin.source, folder if plugin.source else "")


def propose(rules: Sequence[Component], seen: Sequence[GradientStatistics]) -> list[Proposal]:
    """Return thresholds for each rule, from all trials of a setting."""
    finite = [statistics for statistics in seen if len(statistics.places["model"]["n"])]
    return [_proposal(rule, finite) for rule in rules]


def _proposal(rule: Component, seen: Sequence[GradientStatistics]) -> Proposal:
    plugin = registry.of("strategy", rule)
    found = None
    if "threshold" in plugin.options and seen:
        p = float(rule.as_dict().get("p", 2.0))  # type: ignore[arg-type]
        with suppress(RuntimeError, TypeError, ValueError, IndexError, KeyError):  # a user's rule may raise anything
            if p in (2.0, math.inf):  # other norms were not recorded
                found = _from_effects(rule, plugin, _Replay(rule, plugin, seen, p))
    return found or _from_search(rule, plugin)


def _from_effects(rule: Component, plugin: Plugin, replay: _Replay) -> Proposal | None:
    """Return None if the threshold changes neither the share on which the rule fires nor what it leaves."""
    (most, least_kept), (least, most_kept) = replay.sampled()([LOWEST, HIGHEST])
    can_fire, can_keep = most - least > 0.02, most_kept - least_kept > 0.5
    if can_keep and (plugin.facts["loose"] is None or not can_fire):  # it always acts, to a degree
        return Proposal(rule, "keeps", _levels(replay, KEPT, KEEPS, plugin), "steps")
    if not can_fire:
        return None
    # Relative to the largest share on which it can fire: never on elements that are 0, for example.
    shares = [share * most for share in (FIRES_ELEMENTS if replay.per == "element" else FIRES)]
    return Proposal(rule, "fires", _levels(replay, FIRED, shares, plugin), UNITS[replay.per])


def _from_search(rule: Component, plugin: Plugin) -> Proposal:
    search = plugin.facts.get("search")
    if "threshold" not in plugin.options or not search:
        return Proposal(rule, "search")
    low, high = search
    points = np.geomspace(low, high, num=len(FIRES))
    return Proposal(rule, "search", tuple(SuggestedThreshold(_rounded(float(point)), math.nan) for point in points))


def _levels(replay: _Replay, column: int, targets: Sequence[float], plugin: Plugin) -> tuple[SuggestedThreshold, ...]:
    """Return the rounded thresholds of the targets with their effect, without duplicates and those without effect."""
    rounded = sorted({_rounded(threshold) for threshold in _thresholds(replay.sampled(), column, targets, plugin)})
    answers = [answer[column] for answer in replay(rounded)]
    return tuple(SuggestedThreshold(c, answer) for c, answer in zip(rounded, answers, strict=True) if answer)


def _thresholds(replay: _Replay, column: int, targets: Sequence[float], plugin: Plugin) -> list[float]:
    sign = -1 if column == FIRED else 1  # a larger threshold fires less, and keeps more
    if plugin.facts["init"]:
        low, high = plugin.facts["search"] or (1e-2, 1e2)
        return _refined(replay, column, targets, sign, np.geomspace(low / 100, high * 100, GRID))
    return [_bisected(lambda c: sign * (replay([c])[0][column] - target), LOWEST, HIGHEST) for target in targets]  # noqa: B023


def _bisected(excess: Callable[[float], float], low: float, high: float) -> float:
    """Return where an increasing function passes 0, by bisection of the logarithm: the upper end of the interval."""
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if excess(middle) >= 0 else (middle, high)
        if high / low < 1.0005:
            break
    return high


def _refined(replay: _Replay, column: int, targets: Sequence[float], sign: int, grid: np.ndarray) -> list[float]:
    for _ in range(ROUNDS):
        answers = sign * np.array([effect[column] for effect in replay(list(grid))])
        spans = [_span(grid, answers, sign * target) for target in targets]
        grid = np.unique(np.concatenate([np.geomspace(*span, num=GRID // len(targets)) for span in spans]))
    return [span[1] for span in spans]


def _span(grid: np.ndarray, answers: np.ndarray, target: float) -> tuple[float, float]:
    above = np.flatnonzero(answers >= target)
    last = int(above[0]) if len(above) else len(grid) - 1
    return float(grid[max(last - 1, 0)]), float(grid[last])


def _rounded(threshold: float) -> float:
    return float(f"{threshold:.{DIGITS}g}")


class _Replay:
    """Calls one rule on recorded statistics; call it with thresholds to get their effects.

    All steps of all trials are one batch of lanes. A rule with a state has a lane for every trial and threshold, and
    is called step by step.
    """

    def __init__(self, rule: Component, plugin: Plugin, seen: Sequence[GradientStatistics], p: float) -> None:
        self._plugin, self._p = plugin, p
        self._on_weights = plugin.facts.get("on") == "weights"
        self._options = rule_options(rule, plugin)
        self.per = str(rule.as_dict().get("per") or plugin.facts["per"])
        self._steps = max(len(recorded.places["model"]["n"]) for recorded in seen)
        self._seen = [self._statistics(recorded) for recorded in seen]
        here = {"step": "model", "element": "model"}.get(self.per, self.per)
        self._sizes = torch.from_numpy(seen[0].sizes[here]).double()

    def sampled(self) -> _Replay:
        """Return a replay of a part of the steps, evenly spaced."""
        if self._plugin.facts["init"]:
            return self
        few = copy.copy(self)
        numbers = sum(max(array.numel() for array in seen.values()) for seen in self._seen)
        every = math.ceil(numbers / SAMPLED)
        few._seen = [{name: array[::every] for name, array in seen.items()} for seen in self._seen]
        return few

    def __call__(self, thresholds: Sequence[float]) -> list[Effect]:
        if self._plugin.facts["init"]:
            return self._step_by_step(thresholds)
        statistics = {k: torch.cat([seen[k] for seen in self._seen]) for k in self._seen[0]}
        lanes = len(next(iter(statistics.values())))
        answers = []
        for threshold in thresholds:
            column = torch.full((lanes, 1), threshold, dtype=torch.float64)
            fired, kept = self._effect(self._called(statistics, column, 1), statistics)
            answers.append((float(fired.mean()), float(kept.median())))
        return answers

    def _step_by_step(self, thresholds: Sequence[float]) -> list[Effect]:
        trials, many = len(self._seen), len(thresholds)
        column = torch.tensor(thresholds, dtype=torch.float64).repeat(trials).unsqueeze(1)
        state: dict[str, Tensor] | None = None
        fired, kept, recorded = [], [], []
        for step in range(self._steps):
            now = {k: torch.cat([_row(seen[k], step, many) for seen in self._seen]) for k in self._seen[0]}
            if state is None:
                places = next(name for name in ("new", "g", "n", "w") if name in now)
                state = initial_state(self._plugin.facts["init"], self._options, now[places])
            *result, state = self._called(now, column, step + 1, state=state)
            effect = self._effect(result[0] if len(result) == 1 else tuple(result), now)
            fired.append(effect[0])
            kept.append(effect[1])
            recorded.append(torch.tensor([step < len(seen["model_n"]) for seen in self._seen]).repeat_interleave(many))
        valid = torch.stack(recorded)
        shares = torch.stack(fired).where(valid, math.nan).view(-1, many).nanmean(0)
        parts = torch.stack(kept).where(valid, math.nan).view(-1, many).nanmedian(0).values
        return list(zip(shares.tolist(), parts.tolist(), strict=True))

    def _called(self, statistics: dict[str, Tensor], threshold: Tensor, step: int, **state: Any) -> Any:
        size = torch.ones(1, dtype=torch.float64) if self.per == "element" else self._sizes
        available = {**statistics, "step": step, "size": size, **state}
        given = {name: available[name] for name in self._plugin.given}
        given = {k: v.clone() if isinstance(v, Tensor) else v for k, v in given.items()}  # a rule may work in place
        return self._plugin.function(**given, **self._options, threshold=threshold)

    def _effect(self, result: Any, statistics: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return for each lane the share of clipped elements, and the part of the norm that is left."""
        if self.per == "step":
            kept = result.view(-1).double()
            return 1 - kept, kept
        if self.per == "element":
            old = statistics["new" if self._on_weights else "g"]
            return (result != old).double().mean(1), result.norm(dim=1) / old.norm(dim=1).clamp(min=1e-300)
        coefficient, fired = result
        n = statistics["w" if self._on_weights else "n"]
        share = (fired * self._sizes).sum(1) / self._sizes.sum()
        return share, (coefficient * n).norm(dim=1) / n.norm(dim=1).clamp(min=1e-300)

    def _statistics(self, recorded: GradientStatistics) -> dict[str, Tensor]:
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


def _row(array: Tensor, step: int, many: int) -> Tensor:
    """Return one step of a trial for as many lanes; NaN for a trial that has ended."""
    row = array[step] if step < len(array) else torch.full_like(array[0], math.nan)
    return row.expand(many, -1)
