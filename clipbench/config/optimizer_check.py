"""Build each optimizer once on a dummy parameter, to report rejected options before anything starts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from clipbench.config.components import Choice
from clipbench.config.yaml_nodes import Node
from clipbench.errors import Findings, Place
from clipbench.plugins.registry import Plugin


def check_optimizers(choices: Sequence[Choice], section: Node | None, findings: Findings) -> None:
    """Report every value that an optimizer's constructor rejects."""
    places = {node.key: node.place for node in section.walk()} if section else {}
    for choice in choices:
        for changed, options in _one_at_a_time(choice):
            said = refusal(choice.plugin, options)
            if said:
                findings.add(_where(choice, changed, said, places), said)
                break


def _one_at_a_time(choice: Choice) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the first combination, then every other value alone: all values, but not all combinations."""
    yield "", choice.first
    for name, axis in choice.axes:
        for value in axis.values[1:]:
            yield name, choice.first | {name: value}


def refusal(plugin: Plugin, options: dict[str, Any]) -> str:
    """Why an optimizer cannot be made with these options; empty if it can."""
    import torch

    from clipbench.plugins.optimizers import make_optimizer
    from clipbench.plugins.without_dynamo import avoid_dynamo

    avoid_dynamo()
    named = [(name, torch.nn.Parameter(torch.zeros(size))) for name, size in (("weight", (1, 1)), ("bias", (1,)))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make_optimizer(plugin, named, options)
    except Exception as error:  # noqa: BLE001 - a user's own optimizer may refuse in any way
        if plugin.source and "empty parameter list" in str(error):  # it selects parameters of a model, not of this one
            return ""
        return f"{plugin.name} rejects its options: {' '.join(str(error).split()) or type(error).__name__}."
    return ""


def _where(choice: Choice, changed: str, refusal: str, places: dict[str, Place]) -> Place:
    """The option that the refusal names, or else the one that was changed, or else the component."""
    words = set(re.findall(r"\w+", refusal.lower().replace("learning rate", "lr")))
    named = [name for name, _ in choice.axes if {name, name.removesuffix("s")} & words]
    for name in (*named, changed):
        if name and f"{choice.key}.{name}" in places:
            return places[f"{choice.key}.{name}"]
    return places.get(choice.key, Place("", key=choice.key))
