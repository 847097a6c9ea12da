"""Read groups of parameters: patterns of their names, and the options that these parameters have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from clipbench.config.axes import Axis, OptionSpec, read_axis
from clipbench.config.values import InvalidValue, show, validate
from clipbench.config.yaml_nodes import Node
from clipbench.core.parameter_groups import MATCH, group_of
from clipbench.core.trial import Component, Value
from clipbench.errors import Findings, did_you_mean, gather

GROUPS = "groups"
OF_OPTIMIZER = 'a list of {match: ["*.bias"], and options}'
EXAMPLE = 'Write groups: [{match: ["*.bias"], weight_decay: 0.0}].'
OF_ARM = '{"*.bias": 0.5, "*": 1.0}, or a list of thresholds, one for each parameter'
OF_ARM_EXAMPLE = 'Write groups: {"*.bias": 0.5, "*": 1.0}.'

Groups = tuple[Any, ...]


def groups_spec(known: Mapping[str, OptionSpec], any_option: bool) -> OptionSpec:
    """Return the option `groups` of an optimizer with these options; with `any_option` others are checked later."""
    read = partial(_optimizer_groups, known=known, any_option=any_option)
    kind, axis = list[dict[str, Any]], partial(_axis, read=read)
    return OptionSpec(GROUPS, kind, (), takes_list=True, quiet=True, words=OF_OPTIMIZER, axis=axis)


def _axis(node: Node, read: Callable[[Node], Groups]) -> Axis:
    """Return the groups; of a list of lists each one."""
    several = isinstance(node.value, list) and any(isinstance(item.value, list) for item in node.value)
    found = gather(read, node.value if several else [node])
    if len(set(found)) < len(found):
        raise node.error("duplicate groups.", "Keep one of them.")
    return Axis(tuple(found), takes_list=True)


def _optimizer_groups(node: Node, known: Mapping[str, OptionSpec], any_option: bool) -> Groups:
    return tuple(gather(partial(_group, known=known, any_option=any_option), node.items))


def _group(node: Node, known: Mapping[str, OptionSpec], any_option: bool) -> Component:
    if not isinstance(node.value, dict):
        raise node.error(f"expected a group of parameters, got {show(node.plain())}.", EXAMPLE)
    findings, options = Findings(), dict[str, Any]()
    for option, item in node.value.items():
        spec = known.get(option) or (OptionSpec(option, infinite=True) if any_option else None)
        if option == MATCH:
            options[MATCH] = findings.attempt(partial(item.read, read_patterns))
        elif spec is None:
            text = f"a group has no option {option!r}."
            findings.add(item.key_place, text, did_you_mean(option, [MATCH, *known]))
        else:
            options[option] = findings.attempt(partial(_single, item, spec))
    if MATCH not in node.value:
        findings.add(node.place, "this group does not say which parameters it has.", EXAMPLE)
    findings.raise_if_any()
    return group_of(**options)


def read_patterns(value: Any) -> tuple[str, ...]:
    """Return the patterns of a group, which are a list or a single one; raise InvalidValue if they are not."""
    patterns = tuple(validate([value] if isinstance(value, str) else value, list[str]))
    if not all(patterns) or not patterns:
        raise InvalidValue(f"expected patterns of parameter names, got {show(value)}.", 'Write for example ["*.bias"].')
    return patterns


def _single(node: Node, spec: OptionSpec) -> Value:
    """Return the one value that a group gives an option."""
    values = read_axis(node, spec).values
    if len(values) > 1:
        remedy = f"Write several lists of groups to compare them: {GROUPS}: [[...], [...]]."
        raise node.error(f"a group takes one value of {spec.name}, got {len(values)}.", remedy)
    return cast(Value, values[0])


# Of an arm


def thresholds_spec(threshold: Callable[[Any], float | None]) -> OptionSpec:
    """Return the option `groups` of an arm, whose thresholds this function validates."""
    kind = dict[str, float | None] | list[float | None] | list[dict[str, Any]]
    axis = partial(_thresholds_axis, threshold=threshold)
    return OptionSpec(GROUPS, kind, (), takes_list=True, quiet=True, words=OF_ARM, axis=axis)


def _thresholds_axis(node: Node, threshold: Callable[[Any], float | None]) -> Axis:
    """Return the groups; of a list of them each one."""
    several = isinstance(node.value, list) and any(
        isinstance(item.value, list) or (isinstance(item.value, dict) and not _is_group(item)) for item in node.value
    )
    found = gather(partial(_thresholds, threshold=threshold), node.value if several else [node])
    if len(set(found)) < len(found):
        raise node.error("duplicate groups.", "Keep one of them.")
    return Axis(tuple(found), takes_list=True)


def _is_group(node: Node) -> bool:
    return isinstance(node.value, dict) and MATCH in node.value and set(node.value) <= {MATCH, "threshold"}


def _thresholds(node: Node, threshold: Callable[[Any], float | None]) -> Groups:
    """Return a threshold for each parameter, or groups of parameters."""
    items = node.value if isinstance(node.value, list) else []
    if items and all(map(_is_group, items)):
        found = gather(partial(_listed_group, threshold=threshold), items)
    elif items:
        found = gather(lambda item: item.read(threshold), items)
    elif isinstance(node.value, dict) and node.value:
        pairs = [*node.value.items()]
        found = gather(lambda pair: group_of((pair[0],), threshold=pair[1].read(threshold)), pairs)
    else:
        raise node.error(f"expected groups of parameters, got {show(node.plain())}.", OF_ARM_EXAMPLE)
    if all(each is None or (isinstance(each, Component) and each["threshold"] is None) for each in found):
        raise node.error("no group has a threshold.", OF_ARM_EXAMPLE)
    return tuple(found)


def _listed_group(node: Node, threshold: Callable[[Any], float | None]) -> Component:
    if "threshold" not in node.value:
        raise node.error("this group has no threshold.", OF_ARM_EXAMPLE)
    return group_of(node.value[MATCH].read(read_patterns), threshold=node.value["threshold"].read(threshold))
