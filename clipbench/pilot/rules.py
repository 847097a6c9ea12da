"""Strategies by name, every option at its default: what a pilot proposes thresholds for."""

from __future__ import annotations

from collections.abc import Sequence

from clipbench.config.options import signature
from clipbench.core.trial import Component
from clipbench.errors import InputError, Place, Problem, UnknownName
from clipbench.plugins import registry
from clipbench.plugins.registry import Plugin


def candidates(names: Sequence[str], folder: str) -> list[Component]:
    """The named strategies, or all that there are; none of them has a threshold yet."""
    found, problems = [], []
    for name in names or [name for name, plugin in registry.catalogue("strategy").items() if plugin.clips]:
        try:
            found.append(_component(registry.find("strategy", name, folder), folder))
        except UnknownName as error:
            problems.append(Problem(Place(f"--strategy {name}"), error.text, error.remedy))
    if problems:
        raise InputError(problems)
    return found


def _component(plugin: Plugin, folder: str) -> Component:
    if "per" not in plugin.facts:
        remedy = "Decorate it with @clipbench.strategy(per=...)."
        raise UnknownName(f"{plugin.name} does not say where it looks.", remedy)
    slots = [slot for slot in signature(plugin).values() if slot.name != "threshold"]
    options = {slot.name: slot.default for slot in slots if not slot.required and not slot.quiet}
    return Component.of(plugin.name, source=plugin.source, folder=folder if plugin.source else "", **options)
