"""`--set path.to.key=value`: the YAML with some of its values replaced, before it is validated."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import yaml

from clipbench.config.values import InvalidValue
from clipbench.config.yaml_nodes import Node, child_key, parse
from clipbench.errors import Findings, InputError, Place

# A name, an index, or a name in quotes that may hold dots: `sweep.search."optimizer.lr"`.
_STEP = re.compile(r'\[(\d{1,6})\]|"([^"]+)"|([^.\[\]="]+)')
COMPONENTS = ("data", "model", "optimizer", "clip", "loss")


def apply(root: Node, sets: Iterable[str], findings: Findings) -> Node:
    """The root with every `--set` put in, in order."""
    for words in sets:
        place = Place("--set " + " ".join(words.split("\n")).strip())
        try:
            path, value = _read(words, place, findings)
            if isinstance(root.value, dict | None):
                root = _put(root, path, value, place)
        except InputError as error:  # its value is not YAML
            findings.problems += error.problems
        except InvalidValue as invalid:
            findings.add(place, invalid.text, invalid.remedy)
    return root


def override(path: str, value: Any) -> str:
    """Write `path=value` as `--set` takes it, for a value of Python."""
    try:
        text = yaml.safe_dump([plain(value)], default_flow_style=True, width=math.inf, allow_unicode=True)
    except yaml.YAMLError:
        remedy = "Expected a number, a string, true, false, null, or a list or mapping of them."
        raise InputError.at(Place(f"--set {path}"), f"cannot be {value!r}.", remedy) from None
    return f"{path}={text.strip()[1:-1]}"


def plain(value: Any) -> Any:
    """The numbers of numpy as those of Python, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def put_seeds(root: Node, seeds: int) -> Node:
    """The root with the number of seeds that `--seeds` says."""
    place = Place(f"--seeds {seeds}", key="seeds")
    return _put(root, ("seeds",), Node(seeds, place, place), place) if isinstance(root.value, dict) else root


def _read(words: str, place: Place, findings: Findings) -> tuple[tuple[str | int, ...], Node]:
    """Return the path and the value of `path.to.key=value`."""
    path, equals, value = words.partition("=")
    steps = _steps(path.strip())
    if not equals or steps is None:
        raise InvalidValue("is not path.to.key=value.", "Write for example train.epochs=5.")
    key = functools.reduce(child_key, steps, "")
    return steps, parse(value, place.file, findings, key=key, lines=False)


def _steps(path: str) -> tuple[str | int, ...] | None:
    steps: list[str | int] = []
    position = 0
    while position < len(path):
        if steps and path[position] == ".":
            position += 1
        found = _STEP.match(path, position)
        if found is None:
            return None
        index, quoted, name = found.groups()
        counted = index or (name if steps and name and re.fullmatch("[0-9]{1,6}", name) else None)
        steps.append(int(counted) if counted else quoted or name)
        position = found.end()
    return tuple(steps) or None


def _put(node: Node, path: tuple[str | int, ...], value: Node, place: Place) -> Node:
    """Return the node with the value at a path; raise InvalidValue if there is no such path."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        if not isinstance(node.value, list):
            raise InvalidValue(f"{node.key or 'the file'} is not a list, so it has no [{step}].")
        if step >= len(node.value):
            raise InvalidValue(f"{node.key} has {len(node.value)} entries, counted from 0.")
        items = [*node.value]
        items[step] = _put(items[step], rest, value, place)
        return replace(node, value=items)
    here = replace(place, key=child_key(node.key, step))
    mapping = _as_mapping(node, step)
    part = mapping.get(step) or Node(None, here, here)
    return replace(node, value=mapping | {step: _put(part, rest, value, place)})


def _as_mapping(node: Node, step: str) -> dict[str, Node]:
    if isinstance(node.value, dict):
        return node.value
    if node.value is None or isinstance(node.value, InputError):
        return {}
    if isinstance(node.value, list):
        raise InvalidValue(f"{node.key} is a list, so it has no {step!r}.", f"Say which one: {node.key}[0].{step}.")
    section = re.sub(r"\[\d+\]", "", node.key).rpartition(".")[2]
    if isinstance(node.value, str) and section in COMPONENTS:  # `optimizer: sgd` is short for {name: sgd}
        return {"name": Node(node.value, replace(node.place, key=child_key(node.key, "name")), node.key_place)}
    raise InvalidValue(f"{node.key} is a single value, so it has no {step!r}.")


def _is_component(node: Node) -> bool:
    last = re.sub(r"\[\d+\]", "", node.key).rpartition(".")[2]
    return isinstance(node.value, str) and last in COMPONENTS
