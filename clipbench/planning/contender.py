"""What a sweep searches: a `Contender`, which is a strategy in one setting, and its hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clipbench.config.components import Choice
from clipbench.core.trial import Component, Trial, Value, digest

# The field of a trial that holds the component of a section.
FIELDS = {"optimizer": "optimizer", "train": "script", "clip": "clip"}
DIGITS = 4  # significant digits of a searched number; smaller differences do not change training
DECADE = 10.0
MOST_GIVEN = 16  # maximum number of the YAML's own points that a search starts with


@dataclass(frozen=True)
class Hyperparameter:
    """One searched option: a number within a range, or one of `choices`."""

    path: str  # column in the records: `threshold`, `lr`, `optimizer.momentum`, `clip.window`
    key: str  # path in the YAML, as `--set` takes it
    low: float = 0.0  # the range, if it is a number
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Value, ...] = ()
    given: tuple[Value, ...] = ()  # values from the YAML that lie in the range; tried first
    can_widen: tuple[str, ...] = ("low", "high")  # the ends of the range that can be moved outwards

    @property
    def size(self) -> int | None:
        """The number of possible values; None for a real number."""
        if self.choices:
            return len(self.choices)
        return int(self.high) - int(self.low) + 1 if self.whole else None

    @property
    def middle(self) -> Value:
        """The start value if the YAML gives none."""
        if self.choices:
            return self.choices[0]
        return self.rounded(math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2)

    def widened(self, end: str) -> tuple[float, float]:
        """Return the range extended at one end: by a decade on a log scale, else to twice its length."""
        low, high = self.low, self.high
        if self.log:
            low, high = (low / DECADE, high) if end == "low" else (low, high * DECADE)
        else:
            low, high = (low - (high - low), high) if end == "low" else (low, high + (high - low))
        return (math.floor(low) or int(self.log), math.ceil(high)) if self.whole else (low, high)

    def rounded(self, value: Value) -> Value:
        """Round a value to a few digits, clip it to the range, and prefer an equal value from the YAML."""
        if self.choices or not isinstance(value, int | float):
            return _as_tuples(value)
        for given in self.given:
            if isinstance(given, int | float) and _short(given) == _short(value):
                return given
        if self.whole:
            return min(max(round(value), int(self.low)), int(self.high))
        return min(max(_short(value), self.low), self.high)


@dataclass(frozen=True)
class Contender:
    """A strategy in one setting (data, model, training, optimizer), with everything that the search keeps fixed.

    `parts` are the components with options that can be searched, as written in the YAML, by their section: `clip`, and
    `optimizer` or `train`, the script.
    """

    name: str  # label of the strategy without the searched options: `norm(per=tensor)`
    setting: str  # how its setting differs from the others of the experiment; empty if there is only one
    templates: tuple[Trial, ...]  # one per fold; seed and searched options are placeholders
    parts: Mapping[str, Choice]
    hyperparameters: tuple[Hyperparameter, ...] = ()
    left_out: tuple[str, ...] = ()  # arms of the YAML outside the search space: off, or 0 on a log scale

    @property
    def label(self) -> str:
        return f"{self.name} ({self.setting})" if self.setting else self.name

    @property
    def content(self) -> str:
        """A hash of everything that is fixed; scores are comparable as long as it is the same."""
        fixed = [replace(template, seed=0, **self._without_searched(template)).id for template in self.templates]
        return digest([fixed, [[k.path, k.low, k.high, k.log, k.whole, k.choices] for k in self.hyperparameters]])

    @property
    def size(self) -> int | None:
        """The number of points of the search space; None if it is infinite."""
        sizes = [param.size for param in self.hyperparameters]
        return None if None in sizes else math.prod(size for size in sizes if size)

    def trials(self, values: Mapping[str, Value], seeds: Iterable[int]) -> tuple[Trial, ...]:
        """Return the trials of a point, one per fold and seed, identical to those of a YAML with these values."""
        first, seeds = self.templates[0], tuple(seeds)
        new: dict[str, Any] = {FIELDS[part]: self._component(part_of(first, part), part, values) for part in self.parts}
        return tuple(replace(template, **new, seed=seed) for template in self.templates for seed in seeds)

    def given(self) -> tuple[dict[str, Value], ...]:
        """Return the points that the YAML lists, evenly thinned to at most `MOST_GIVEN`."""
        if not any(param.given for param in self.hyperparameters):
            return ()
        each = [param.given or (param.middle,) for param in self.hyperparameters]
        total = math.prod(map(len, each))
        last = min(total, MOST_GIVEN) - 1
        places = [round(number * (total - 1) / last) for number in range(last + 1)] if last else [0]
        return tuple(self._point(each, place) for place in places)

    def _point(self, each: Sequence[Sequence[Value]], place: int) -> dict[str, Value]:
        """Return one point of the product, in which the last hyperparameter varies fastest."""
        values = []
        for choices in reversed(each):
            place, position = divmod(place, len(choices))
            values.append(choices[position])
        return {param.path: value for param, value in zip(self.hyperparameters, reversed(values), strict=True)}

    def _searched(self, section: str) -> dict[str, str]:
        """Return the searched options of a component, with the paths of their hyperparameters."""
        places = {param.path: option_of(param.path) for param in self.hyperparameters}
        return {option: path for path, (part, option) in places.items() if part == section}

    def _without_searched(self, template: Trial) -> dict[str, Any]:
        return {FIELDS[part]: part_of(template, part).without(*self._searched(part)) for part in self.parts}

    def _component(self, template: Component, section: str, values: Mapping[str, Value]) -> Component:
        searched = {option: values[path] for option, path in self._searched(section).items()}
        found = self.parts[section].component(template.as_dict() | searched)
        return replace(found, aside=template.aside)


def part_of(trial: Trial, section: str) -> Component:
    """Return the component of a trial that a section of the YAML names."""
    found: Component = getattr(trial, FIELDS[section])
    return found


def option_of(path: str) -> tuple[str, str]:
    """Return the section and the option that a path names."""
    short = {"threshold": ("clip", "threshold"), "lr": ("optimizer", "lr")}
    section, _, option = path.partition(".")
    return short.get(path) or (section, option)


def path_of(section: str, option: str) -> str:
    """Return the column of the records that holds an option."""
    return option if (section, option) in (("clip", "threshold"), ("optimizer", "lr")) else f"{section}.{option}"


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _as_tuples(value: object) -> Value:
    """Turn lists, which JSON makes of tuples, back into tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value  # type: ignore[return-value]
