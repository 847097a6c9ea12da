"""The options that clipbench adds to every arm, as far as they mean something for its rule."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from clipbench.registry import Plugin
from clipbench.spec.axes import Slot
from clipbench.spec.values import fit

Place = Literal["model", "tensor", "unit"]
After = Literal["momentum"] | None


def arm_options(plugin: Plugin) -> dict[str, Slot]:
    """By their names; a rule's own option of the same name goes before."""
    return {slot.name: slot for slot in _slots(plugin) if slot.name not in plugin.options}


def why_not(plugin: Plugin, option: str) -> str:
    """Why a rule has no such option although others have it; empty if none has."""
    if option == "per":
        return f"{plugin.name} looks at each {plugin.facts['per']}; it has no `per`."
    if option in ("after",) and plugin.name == "none":
        return f"none does nothing; it has no `{option}`."
    if option == "after":
        return f"{_acts(plugin)}; it has no `after`."
    return ""


def _slots(plugin: Plugin) -> Iterator[Slot]:
    per = plugin.facts.get("per")
    if per in ("model", "tensor", "unit"):
        yield Slot("per", partial(fit, annotation=Place), Place, per)
    yield Slot("exclude", partial(fit, annotation=list[str]), list[str], (), takes_list=True)
    if per != "step" and plugin.facts.get("on") != "weights" and plugin.name != "none":
        yield Slot("after", partial(fit, annotation=After), After, None, quiet=True)


def _acts(plugin: Plugin) -> str:
    if plugin.facts.get("on") == "weights":
        return f"{plugin.name} acts on the weights, after the step"
    return f"{plugin.name} keeps or refuses the step as a whole"
