"""Axes: options with a list or range of values, each of which makes trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from clipbench.config.values import InvalidValue, as_yaml, is_plain, show, takes_integers, validate
from clipbench.config.yaml_nodes import Node
from clipbench.errors import Findings, InputError, did_you_mean, gather
from clipbench.plugins.registry import REQUIRED

MOST_POINTS = 1000
KINDS = ("log", "linear")


@dataclass(frozen=True)
class Range:
    """All values from `low` to `high`. `run` takes its points, `sweep` searches all of it."""

    low: float
    high: float
    log: bool
    points: int = 5
    integer: bool = False

    def values(self) -> tuple[float, ...]:
        """Return the points, evenly spaced (in the logarithm if `log`); the ends are exact."""
        if self.integer:
            return tuple(dict.fromkeys(round(point) for point in self._points()))
        # Six digits read well in a table, and hide that powers differ in the last bit between machines,
        # which would give the same trial another id there.
        rounded = tuple(float(f"{point:.6g}") for point in self._points()[1:-1])
        points = (self.low, *rounded, self.high)
        ascending = all(low < high for low, high in itertools.pairwise(points))
        return points if ascending and self.points > 1 else self._points()

    def _points(self) -> tuple[float, ...]:
        if self.points == 1:
            return (self._at(0.5),)
        inner = [self._at(index / (self.points - 1)) for index in range(1, self.points - 1)]
        return (self.low, *inner, self.high)

    def _at(self, share: float) -> float:
        if self.log:
            return self.low * math.exp(share * (math.log(self.high) - math.log(self.low)))
        return self.low + share * (self.high - self.low)

    def as_dict(self) -> dict[str, Any]:
        """Return the range as YAML writes it."""
        return {"log" if self.log else "linear": [self.low, self.high], "points": self.points}


@dataclass(frozen=True)
class Axis:
    """The values of an option; a single one for most options."""

    values: tuple[Any, ...]
    ranges: tuple[Range, ...] = ()
    takes_list: bool = False  # each value is a list by nature


@dataclass(frozen=True)
class OptionSpec:
    """An option of a section or component: the type of its values, which validates them, and its default."""

    name: str
    annotation: Any = Any
    default: Any = REQUIRED
    takes_list: bool = False  # a list is one value, a list of lists an axis
    quiet: bool = False  # left out of labels and trial ids at its default
    aside: bool = False  # changes no number, and is no part of labels and trial ids
    infinite: bool = False  # takes numbers that are not finite
    takes_default: bool = False  # even where its type excludes it: `def f(width: int = None)`
    reader: Callable[[Any], Any] | None = None  # validates where a type does not; raises InvalidValue
    kind: str = ""  # its values are components of this kind, or names beside them
    words: str = ""  # describes the values where a type does not
    axis: Callable[[Node], Axis] | None = None  # reads values whose parts have places of their own

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def integer(self) -> bool:
        """Whether only whole numbers fit."""
        return takes_integers(self.annotation)

    def validate(self, value: Any) -> Any:
        """Return the value as the option's type, lists as tuples; raise InvalidValue if it does not take it."""
        if self.reader:
            return frozen(self.reader(value))
        if self.takes_default and is_plain(self.default) and as_yaml(value) == as_yaml(self.default):
            return self.default
        return frozen(validate(value, self.annotation, infinite=self.infinite))


def frozen(value: Any) -> Any:
    """Return the value with lists as tuples, so that it can be hashed."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def read_axis(node: Node, spec: OptionSpec) -> Axis:
    """Return the values that a node gives an option."""
    if spec.aside and isinstance(node.value, list) and not spec.takes_list:
        raise node.error("expected one value, got a list.", "Write one of its values.")
    if not isinstance(node.value, list) or (spec.takes_list and not any(isinstance(i.value, list) for i in node.value)):
        return _single(node, spec)
    if not node.value:
        raise node.error("the list is empty.", "Write at least one value.")
    parts = gather(lambda item: _single(item, spec), node.value)
    values = [value for part in parts for value in part.values]
    seen = set()
    for value in values:
        if (type(value), value) in seen:
            raise node.error(f"duplicate value {show(value)}.", "Keep one of them.")
        seen.add((type(value), value))
    return Axis(tuple(values), tuple(found for part in parts for found in part.ranges), spec.takes_list)


def _single(node: Node, spec: OptionSpec) -> Axis:
    if not is_range(node):
        return Axis((node.read(spec.validate),), takes_list=spec.takes_list)
    found = read_range(node, integer=spec.integer)
    return node.read(lambda _: Axis(tuple(spec.validate(value) for value in found.values()), (found,)))


def is_range(node: Node) -> bool:
    return isinstance(node.value, dict) and any(kind in node.value for kind in KINDS)


def read_range(node: Node, *, integer: bool = False) -> Range:
    """Return the range of a mapping with `log` or `linear`."""
    findings, mapping = Findings(), node.value
    for name, item in mapping.items():
        if name not in (*KINDS, "points"):
            remedy = did_you_mean(name, (*KINDS, "points"))
            findings.add(item.key_place, f"unknown key {name!r} in a range.", remedy)
    if all(kind in mapping for kind in KINDS):
        findings.add(node.place, "a range cannot be both log and linear.", "Keep one of them.")
        raise InputError(findings.problems)
    kind = "log" if "log" in mapping else "linear"
    ends = findings.attempt(lambda: mapping[kind].read(partial(_ends, log=kind == "log")))
    points = findings.attempt(lambda: mapping["points"].read(_points)) if "points" in mapping else 5
    findings.raise_if_any()
    assert ends and points  # or there was a problem
    return Range(ends[0], ends[1], log=kind == "log", points=points, integer=integer)


def _ends(ends: Any, log: bool) -> tuple[float, float]:
    problem = ""
    if not isinstance(ends, list) or len(ends) != 2 or not all(_is_finite(end) for end in ends):
        problem = "a range needs two finite numbers"
    elif ends[0] >= ends[1]:
        problem = "the first end of a range must be less than the second"
    elif log and ends[0] <= 0:
        problem = "the ends of a log range must be greater than 0"
    elif math.isinf(ends[1] / ends[0] if log else float(ends[1]) - float(ends[0])):
        problem = "the ends of a range are too far apart"
    if problem:
        raise InvalidValue(f"{problem}, got {show(ends)}.", "Write a range as {log: [0.01, 1.0]}.")
    return float(ends[0]), float(ends[1])


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _points(points: Any) -> int:
    if isinstance(points, bool) or not isinstance(points, int) or not 1 <= points <= MOST_POINTS:
        raise InvalidValue(f"points must be between 1 and {MOST_POINTS}, got {show(points)}.")
    return points
