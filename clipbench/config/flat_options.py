"""The options of an experiment as flat names and texts, such as `data.split.val` and `clip.norm.threshold`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from clipbench.config.frozen_section import KEY


def flattened(text: str) -> dict[str, str]:
    """Return the options of a resolved YAML text."""
    return {name: value for name, value in _options("", yaml.safe_load(text)) if not name.startswith(f"{KEY}.")}


def _options(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """The name and text of each option. What has a name is called by it, also where one of several is chosen."""
    if isinstance(value, Mapping):
        if prefix and "name" in value:
            yield prefix, str(value["name"])
        for name, item in value.items():
            if prefix and name == "name":
                continue
            yield from _options(f"{prefix}.{name}" if prefix else name, item)
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        names = [item.get("name") for item in value]
        if all(names) and len(set(names)) == len(value):
            yield prefix, ", ".join(map(str, names))
            for name, item in zip(names, value, strict=True):
                options = {option: one for option, one in item.items() if option != "name"}
                yield from _options(f"{prefix}.{name}", options)
        else:
            yield from ((f"{prefix}.{number}", _text(item)) for number, item in enumerate(value, start=1))
    else:
        yield prefix, _text(value)


def _text(value: Any) -> str:
    """A value as the YAML writes it, in one line."""
    if isinstance(value, list | dict):
        return str(yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False)).strip()
    return str(value)
