"""Axes: options with a list or range of values, each of which makes trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from clipbench.config.values import InvalidValue, show
from clipbench.config.yaml_nodes import INVALID, Node
from clipbench.errors import Findings, did_you_mean
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
    """An option of a section or component: its name, validation and default."""

    name: str
    validate: Callable[[Any], Any]  # raises InvalidValue
    annotation: Any = Any  # the type of its values, as far as a type can express it
    default: Any = REQUIRED
    takes_list: bool = False  # a list is one value, a list of lists an axis
    integer: bool = False  # of numbers, only whole ones fit
    kind: str = ""  # its values are components of this kind, or names beside them
    words: str = ""  # describes the values where a type does not
    quiet: bool = False  # left out of labels and trial ids at its default

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


def read_axis(node: Node, spec: OptionSpec, findings: Findings) -> Axis | None:
    """The values that a node gives an option; None if any of them was reported as wrong."""
    if not _is_axis(node, spec):
        return _single(node, spec, findings)
    if not node.value:
        findings.add(node.place, "the list is empty.", "Write at least one value.")
        return None
    parts = [_single(item, spec, findings) for item in node.value]
    kept = [part for part in parts if part is not None]
    if len(kept) < len(parts):
        return None
    axis = Axis(
        tuple(value for part in kept for value in part.values),
        tuple(found for part in kept for found in part.ranges),
        spec.takes_list,
    )
    return _without_doubles(node, axis, findings)


def read_value(node: Node, spec: OptionSpec, findings: Findings) -> Any:
    """The one value of an option that cannot be an axis; INVALID if it was reported as wrong."""
    plain = node.plain()
    if plain is INVALID:
        return INVALID
    try:
        return frozen(spec.validate(plain))
    except InvalidValue as invalid:
        findings.add(node.place, invalid.text, invalid.remedy)
        return INVALID


def frozen(value: Any) -> Any:
    """Return the value with lists as tuples, so that it can be hashed."""
    return tuple(frozen(item) for item in value) if isinstance(value, list | tuple) else value


def is_range(node: Node) -> bool:
    return isinstance(node.value, dict) and any(kind in node.value for kind in KINDS)


def read_range(node: Node, findings: Findings, *, integer: bool = False) -> Range | None:
    """Return the range of a mapping with `log` or `linear`; None if it was reported as wrong."""
    mapping: dict[str, Node] = node.value
    before = len(findings.problems)
    for name, item in mapping.items():
        if name not in (*KINDS, "points"):
            remedy = did_you_mean(name, (*KINDS, "points"))
            findings.add(item.key_place, f"unknown key {name!r} in a range.", remedy)
    if all(kind in mapping for kind in KINDS):
        findings.add(node.place, "a range cannot be both log and linear.", "Keep one of them.")
        return None
    kind = "log" if "log" in mapping else "linear"
    ends = _ends(mapping[kind], kind == "log", findings)
    points = _points(mapping["points"], findings) if "points" in mapping else 5
    if ends is None or points is None or len(findings.problems) > before:
        return None
    return Range(*ends, log=kind == "log", points=points, integer=integer)


def _is_axis(node: Node, spec: OptionSpec) -> bool:
    if not isinstance(node.value, list):
        return False
    return not spec.takes_list or any(isinstance(item.value, list) for item in node.value)


def _single(node: Node, spec: OptionSpec, findings: Findings) -> Axis | None:
    if is_range(node):
        return _points_of(node, spec, findings)
    value = read_value(node, spec, findings)
    return None if value is INVALID else Axis((value,), takes_list=spec.takes_list)


def _points_of(node: Node, spec: OptionSpec, findings: Findings) -> Axis | None:
    found = read_range(node, findings, integer=spec.integer)
    if found is None:
        return None
    try:
        return Axis(tuple(spec.validate(value) for value in found.values()), (found,))
    except InvalidValue as invalid:
        findings.add(node.place, invalid.text, invalid.remedy)
        return None


def _without_doubles(node: Node, axis: Axis, findings: Findings) -> Axis | None:
    seen = set()
    for value in axis.values:
        marked = (type(value), value)
        if marked in seen:
            findings.add(node.place, f"duplicate value {show(value)}.", "Keep one of them.")
            return None
        seen.add(marked)
    return axis


def _ends(node: Node, log: bool, findings: Findings) -> tuple[float, float] | None:
    ends = node.plain()
    if ends is INVALID:
        return None
    problem = "".join(list(_faults(ends, log))[:1])
    if problem:
        findings.add(node.place, f"{problem}, got {show(ends)}.", "Write a range as {log: [0.01, 1.0]}.")
        return None
    return float(ends[0]), float(ends[1])


def _faults(ends: Any, log: bool) -> Iterator[str]:
    if not isinstance(ends, list) or len(ends) != 2 or not all(_is_finite(end) for end in ends):
        yield "a range needs two finite numbers"
    elif ends[0] >= ends[1]:
        yield "the first end of a range must be less than the second"
    elif log and ends[0] <= 0:
        yield "the ends of a log range must be greater than 0"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _points(node: Node, findings: Findings) -> int | None:
    points = node.plain()
    if points is INVALID:
        return None
    if isinstance(points, bool) or not isinstance(points, int) or not 1 <= points <= MOST_POINTS:
        findings.add(node.place, f"points must be between 1 and {MOST_POINTS}, got {show(points)}.")
        return None
    return points
