"""From what a user writes for a rule, such as `norm(per=tensor)@0.5`, to a component whose options are checked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from clipbench.config.components import read_choices
from clipbench.config.group_options import GROUPS
from clipbench.config.yaml_nodes import Node, child_key, parse
from clipbench.core import arm_label
from clipbench.core.parameter_groups import MATCH
from clipbench.core.trial import Component
from clipbench.errors import Findings, InputError, Place
from clipbench.planning import arm_checks

Rule = str | Mapping[str, Any] | Component

EXAMPLE = 'Write for example "norm@1.0", {"name": "norm", "threshold": 1.0}, or "norm" with threshold=1.0.'


def read_rule(rule: Rule, options: Mapping[str, Any], exclude: str | Iterable[str] = ()) -> Component:
    """Return the rule with its options, checked as those of a YAML file are; raise InputError if one is wrong."""
    excluded = [exclude] if isinstance(exclude, str) else list(exclude)
    if isinstance(rule, Component):
        found = _with_exclude(rule, options, excluded)
    else:
        found = _checked(*_named(rule), options, excluded)
    for name in arm_checks.options_of_parts(found):
        text = f"{name} needs the gradient of each part of a batch, and `.grad` is that of the whole batch."
        raise InputError.at(Place(found.arm, key=name), text, "Remove it, or train with `clipbench run`.")
    return found


def _with_exclude(rule: Component, options: Mapping[str, Any], exclude: list[str]) -> Component:
    if options:
        text = f"a Component has all of its options, got {', '.join(options)} beside it."
        raise InputError.at(Place(rule.arm), text, "Write the name of the rule and all of its options.")
    if not exclude:
        return rule
    known = dict(rule.options)
    known["exclude"] = (*(known.get("exclude") or ()), *exclude)  # type: ignore[misc]
    return Component.with_options(rule.name, known, rule.source, rule.folder, rule.label)


def _named(rule: Any) -> tuple[str, str, dict[str, Node]]:
    """Return what stands for the rule in messages, its name, and the options that are written with it."""
    if isinstance(rule, str):
        return _parsed(rule)
    if not isinstance(rule, Mapping):
        raise InputError.at(Place(repr(rule)), f"a rule cannot be of type {type(rule).__name__}.", EXAMPLE)
    if not isinstance(name := rule.get("name"), str):
        raise InputError.at(Place("rule"), f"this rule has no `name`, got {dict(rule)!r}.", EXAMPLE)
    return name, name, {key: _node(value, key, name) for key, value in rule.items() if key != "name"}


def _checked(
    shown: str, name: str, written: dict[str, Node], options: Mapping[str, Any], exclude: list[str]
) -> Component:
    place = Place(shown)
    given = {key: _node(value, key, shown) for key, value in options.items()}
    if twice := sorted(written.keys() & given.keys()):
        raise InputError.at(place, f"{' and '.join(twice)} is given twice.", "Keep one of them.")
    given = written | given
    if exclude:
        known = given["exclude"].items if "exclude" in given else []
        more = [_node(pattern, "exclude", shown) for pattern in exclude]
        given["exclude"] = Node([*known, *more], place, place)
    given["name"] = Node(name, place, place)
    findings = Findings()
    choices = read_choices(Node(given, place, place), "strategy", os.getcwd(), findings)
    findings.raise_if_any()
    (choice,) = choices
    for option, axis in choice.axes:
        if len(axis.values) > 1:
            text = f"a clipper takes one value of {option}, got {len(axis.values)}."
            raise InputError.at(Place(shown, key=option), text, "Make a clipper for each of them.")
    return next(choice.components())


# Python's values


def _node(value: Any, key: str, shown: str) -> Node:
    """Return a value as it would be read from YAML."""
    place = Place(shown, key=key)
    if isinstance(value, Mapping):
        parts = {str(name): _node(part, child_key(key, str(name)), shown) for name, part in value.items()}
        return Node(parts, place, place)
    if isinstance(value, list | tuple | set | frozenset):
        return Node([_node(part, child_key(key, number), shown) for number, part in enumerate(value)], place, place)
    if callable(getattr(value, "item", None)):  # a number of numpy or torch
        value = value.item()
    if value is None or (isinstance(value, bool | int | float | str) and value == value):
        return Node(value, place, place)
    text = f"expected a number, a string, true, false, None, or a list or mapping of them, got {value!r}."
    raise InputError.at(place, text)


# The arms of clipbench's tables


def _parsed(arm: str) -> tuple[str, str, dict[str, Node]]:
    head, threshold = arm, ""
    if found := re.fullmatch(r"(.+)@([^@:/()]*)", arm):
        head, threshold = found.groups()
    name, texts = head, list[str]()
    if head.endswith(")") and (start := _opening(head)) > 0:
        name, texts = head[:start], _split(head[start + 1 : -1])
    options = {}
    for text in texts:
        option, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise InputError.at(Place(arm), f"expected option=value in the parentheses, got {text!r}.", EXAMPLE)
        options[option] = _read(value, option, arm)
    if head != arm:
        place = Place(arm, key="threshold")
        off = threshold == "off"
        options["threshold"] = Node(None, place, place) if off else _read(threshold or "''", "threshold", arm)
    return arm, name, options


def _opening(text: str) -> int:
    """Return where the parenthesis is opened that the text ends with."""
    depth = 0
    for position in range(len(text) - 1, -1, -1):
        depth += (text[position] == ")") - (text[position] == "(")
        if depth == 0:
            return position
    return -1


def _split(text: str) -> list[str]:
    return [part.strip() for part in arm_label.parts(text) if part.strip()]


def _read(text: str, key: str, shown: str) -> Node:
    """Read a value as labels write it: `[head, *.bias]`, `linear(final=0.1)`, or as YAML."""
    place = Place(shown, key=key)
    if text.startswith("[") and text.endswith("]"):
        return Node([_read(part, key, shown) for part in _split(text[1:-1])], place, place)
    if re.fullmatch(r"[\w.:/-]+\(.*\)", text):
        _, name, options = _parsed(text)
        return Node({"name": Node(name, place, place), **options}, place, place)
    patterns, colon, threshold = text.rpartition(": ")
    if key == GROUPS and colon:
        matched = [Node(pattern, place, place) for pattern in patterns.split()]
        return Node({MATCH: Node(matched, place, place), "threshold": _read(threshold, key, shown)}, place, place)
    if key == "exclude" or text[:1] in "*&!%@`":  # a pattern, such as `0` or `*.bias`, which YAML would read otherwise
        return Node(text, place, place)
    findings = Findings()
    node = parse(text, shown, findings, key=key, lines=False)
    findings.raise_if_any()
    return node
