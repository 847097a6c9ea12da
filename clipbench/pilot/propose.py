"""Thresholds for any rule, from the statistics of a pilot: found by calling the rule itself.

A rule is called with the statistics of each recorded step, at different thresholds. Larger thresholds clip less: the
threshold at which a rule fires on a given share of steps is found by bisection. For a rule that always fires, the part
of the norm that it leaves is used instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import numpy as np

from clipbench.config.component_options import signature
from clipbench.core.trial import Component
from clipbench.errors import InputError, Place, Problem, UnknownName
from clipbench.pilot.replay import Replay, unit_of
from clipbench.pilot.results import Proposal, RecordedSteps, SuggestedThreshold
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
UNITS = {"step": "steps", "model": "steps", "tensor": "tensors", "unit": "units", "element": "elements"}

FIRED, KEPT = 0, 1  # fields of an effect

T = TypeVar("T")


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


def propose(rules: Sequence[Component], seen: Sequence[RecordedSteps]) -> list[Proposal]:
    """Return thresholds for each rule, from all trials of a setting."""
    finite = _with_steps(seen)
    return [_proposal(rule, finite) for rule in rules]


def at_thresholds(
    rules: Sequence[Component], seen: Sequence[RecordedSteps], thresholds: Sequence[float]
) -> list[Proposal]:
    """Return the effects of given thresholds of each rule that has one."""
    finite, found = _with_steps(seen), []
    for rule in rules:
        if "threshold" in registry.of("strategy", rule).options:
            effects = _replayed(rule, finite, lambda replay: replay(thresholds)) or ()
            levels = (
                SuggestedThreshold(threshold, effect.fired, effect.left)
                for threshold, effect in zip(
                    thresholds, effects, strict=False
                )  # none of a rule that cannot be replayed
            )
            found.append(Proposal(rule, "given", tuple(levels), UNITS[unit_of(rule)]))
    return found


def _with_steps(seen: Sequence[RecordedSteps]) -> list[RecordedSteps]:
    return [statistics for statistics in seen if len(statistics.places["model"]["n"])]


def _proposal(rule: Component, seen: Sequence[RecordedSteps]) -> Proposal:
    plugin = registry.of("strategy", rule)
    found = None
    if "threshold" in plugin.options:
        found = _replayed(rule, seen, lambda replay: _from_effects(rule, plugin, replay))
    return found or _from_search(rule, plugin)


def _replayed(rule: Component, seen: Sequence[RecordedSteps], work: Callable[[Replay], T]) -> T | None:
    """Return what `work` makes of the replay of a rule; None if that is not possible."""
    p = float(rule.as_dict().get("p", 2.0))  # type: ignore[arg-type]
    with suppress(RuntimeError, TypeError, ValueError, IndexError, KeyError):  # a user's rule may raise anything
        if seen and p in (2.0, math.inf):  # other norms were not recorded
            return work(Replay(rule, registry.of("strategy", rule), seen, p))
    return None


def _from_effects(rule: Component, plugin: Plugin, replay: Replay) -> Proposal | None:
    """Return None if the threshold changes neither the share on which the rule fires nor what it leaves."""
    (most, least_kept, _), (least, most_kept, _) = replay.sampled()([LOWEST, HIGHEST])
    can_fire, can_keep = most - least > 0.02, most_kept - least_kept > 0.5
    if can_keep and (plugin.facts["loose"] is None or not can_fire):  # it always acts, to a degree
        return Proposal(rule, "keeps", _levels(replay, KEPT, KEEPS, plugin), "steps")
    if not can_fire:
        return None
    unit = unit_of(rule)
    # Relative to the largest share on which it can fire: never on elements that are 0, for example.
    shares = [share * most for share in (FIRES_ELEMENTS if unit == "element" else FIRES)]
    return Proposal(rule, "fires", _levels(replay, FIRED, shares, plugin), UNITS[unit])


def _from_search(rule: Component, plugin: Plugin) -> Proposal:
    search = plugin.facts.get("search")
    if "threshold" not in plugin.options or not search:
        return Proposal(rule, "search")
    low, high = search
    points = np.geomspace(low, high, num=len(FIRES))
    return Proposal(rule, "search", tuple(SuggestedThreshold(_rounded(float(point)), math.nan) for point in points))


def _levels(replay: Replay, column: int, targets: Sequence[float], plugin: Plugin) -> tuple[SuggestedThreshold, ...]:
    """Return the rounded thresholds of the targets with their effect, without duplicates and those without effect."""
    rounded = sorted({_rounded(threshold) for threshold in _thresholds(replay.sampled(), column, targets, plugin)})
    answers = [answer[column] for answer in replay(rounded)]
    return tuple(SuggestedThreshold(c, answer) for c, answer in zip(rounded, answers, strict=True) if answer)


def _thresholds(replay: Replay, column: int, targets: Sequence[float], plugin: Plugin) -> list[float]:
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


def _refined(replay: Replay, column: int, targets: Sequence[float], sign: int, grid: np.ndarray) -> list[float]:
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
