"""Contender and Hyperparameter: a strategy on one setting, and the options of it that a sweep searches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from clipbench.config.components import Choice
from clipbench.core.trial import Component, Trial, Value, digest

DIGITS = 4  # of a searched number: what differs by less trains alike, and reads worse
DECADE = 10.0
MOST_GIVEN = 16  # points that a search begins with


@dataclass(frozen=True)
class Hyperparameter:
    """One searched option: a number within a range, or one of `choices`."""

    path: str  # column of the records: `threshold`, `lr`, `optimizer.momentum`, `clip.window`
    key: str  # where it stands in the YAML, as `--set` takes it
    low: float = 0.0  # of a number
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Value, ...] = ()
    given: tuple[Value, ...] = ()  # the YAML's own values within what is searched; tried first
    can_widen: tuple[str, ...] = ("low", "high")  # the ends beyond which the option takes values too

    @property
    def size(self) -> int | None:
        """How many values it can take, where they can be counted."""
        if self.choices:
            return len(self.choices)
        return int(self.high) - int(self.low) + 1 if self.whole else None

    @property
    def middle(self) -> Value:
        """The value to begin with where the YAML has none of its own."""
        if self.choices:
            return self.choices[0]
        return self.rounded(math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2)

    def widened(self, end: str) -> tuple[float, float]:
        """Its range with a decade more at one end, or twice as long."""
        low, high = self.low, self.high
        if self.log:
            low, high = (low / DECADE, high) if end == "low" else (low, high * DECADE)
        else:
            low, high = (low - (high - low), high) if end == "low" else (low, high + (high - low))
        return (math.floor(low) or int(self.log), math.ceil(high)) if self.whole else (low, high)

    def rounded(self, value: Value) -> Value:
        """The value as it is trained: of few digits, within the range, and the YAML's own where it is one of these."""
        if self.choices or not isinstance(value, int | float):
            return _listed_again(value)
        for given in self.given:
            if isinstance(given, int | float) and _short(given) == _short(value):
                return given
        if self.whole:
            return min(max(round(value), int(self.low)), int(self.high))
        return min(max(_short(value), self.low), self.high)


@dataclass(frozen=True)
class Contender:
    """A strategy on one setting: data, model, training and optimizer, and all that is not searched of them."""

    name: str  # the strategy's label without what is searched: `norm(per=tensor)`
    setting: str  # what tells its setting from others of the experiment; empty if there is one
    templates: tuple[Trial, ...]  # one for each fold; their seed and what is searched of them mean nothing
    optimizer: Choice  # as the YAML writes it
    clip: Choice
    hyperparameters: tuple[Hyperparameter, ...] = ()
    left_out: tuple[str, ...] = ()  # arms of the YAML that are outside of what is searched: off, or 0 on a log scale

    @property
    def label(self) -> str:
        return f"{self.name} ({self.setting})" if self.setting else self.name

    @property
    def content(self) -> str:
        """A hash of everything that is fixed: scores belong together as long as it stays the same."""
        fixed = [
            replace(
                template,
                seed=0,
                optimizer=template.optimizer.without(*self._searched("optimizer")),
                clip=template.clip.without(*self._searched("clip")),
            ).id
            for template in self.templates
        ]
        return digest([fixed, [[k.path, k.low, k.high, k.log, k.whole, k.choices] for k in self.hyperparameters]])

    @property
    def size(self) -> int | None:
        """How many points there are, where they can be counted."""
        sizes = [param.size for param in self.hyperparameters]
        return None if None in sizes else math.prod(size for size in sizes if size)

    def trials(self, values: Mapping[str, Value], seeds: Iterable[int]) -> tuple[Trial, ...]:
        """One for each fold and seed, with these hyperparameter values: the trials that the YAML would make of them."""
        first, seeds = self.templates[0], tuple(seeds)
        optimizer = self._component(self.optimizer, first.optimizer, "optimizer", values)
        clip = self._component(self.clip, first.clip, "clip", values)
        return tuple(
            replace(template, optimizer=optimizer, clip=clip, seed=seed)
            for template in self.templates
            for seed in seeds
        )

    def given(self) -> tuple[dict[str, Value], ...]:
        """Points of the YAML's own values, evenly thinned where there are many; none where it has none."""
        if not any(param.given for param in self.hyperparameters):
            return ()
        each = [param.given or (param.middle,) for param in self.hyperparameters]
        total = math.prod(map(len, each))
        last = min(total, MOST_GIVEN) - 1
        places = [round(number * (total - 1) / last) for number in range(last + 1)] if last else [0]
        return tuple(self._point(each, place) for place in places)

    def _point(self, each: Sequence[Sequence[Value]], place: int) -> dict[str, Value]:
        """The point at a place of the product, of which the last hyperparameter varies fastest."""
        values = []
        for choices in reversed(each):
            place, position = divmod(place, len(choices))
            values.append(choices[position])
        return {param.path: value for param, value in zip(self.hyperparameters, reversed(values), strict=True)}

    def _searched(self, section: str) -> dict[str, str]:
        """The searched options of the optimizer or the strategy, each with its hyperparameter's path."""
        places = {param.path: option_of(param.path) for param in self.hyperparameters}
        return {option: path for path, (part, option) in places.items() if part == section}

    def _component(self, choice: Choice, template: Component, section: str, values: Mapping[str, Value]) -> Component:
        searched = {option: values[path] for option, path in self._searched(section).items()}
        return choice.component(template.as_dict() | searched)


def option_of(path: str) -> tuple[str, str]:
    """The section and the option of a hyperparameter's path."""
    short = {"threshold": ("clip", "threshold"), "lr": ("optimizer", "lr")}
    section, _, option = path.partition(".")
    return short.get(path) or (section, option)


def path_of(section: str, option: str) -> str:
    """The column of the records that an option has."""
    return option if (section, option) in (("clip", "threshold"), ("optimizer", "lr")) else f"{section}.{option}"


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _listed_again(value: object) -> Value:
    """A list that comes from a file was a tuple."""
    return tuple(map(_listed_again, value)) if isinstance(value, list | tuple) else value  # type: ignore[return-value]
