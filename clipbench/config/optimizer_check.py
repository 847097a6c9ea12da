"""Build each optimizer once on a dummy parameter, to report rejected options before anything starts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from clipbench.config.components import Choice
from clipbench.config.group_options import GROUPS
from clipbench.config.yaml_nodes import Node
from clipbench.core.parameter_groups import MATCH
from clipbench.errors import Findings, Place, did_you_mean
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
        else:
            _check_groups(choice, places, findings)


def _one_at_a_time(choice: Choice) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the first combination, then every other value alone: all values, but not all combinations."""
    first = {name: value for name, value in choice.first.items() if not _are_groups(choice, name)}
    yield "", first
    for name, axis in choice.axes:
        for value in () if _are_groups(choice, name) else axis.values[1:]:
            yield name, first | {name: value}


def _are_groups(choice: Choice, option: str) -> bool:
    return option == GROUPS and GROUPS not in choice.plugin.options


def _check_groups(choice: Choice, places: dict[str, Place], findings: Findings) -> None:
    """Report options of groups that the constructor rejects for all parameters, or does not know."""
    several = choice.values(GROUPS) if _are_groups(choice, GROUPS) else ()
    first = {name: value for name, value in choice.first.items() if name != GROUPS}
    known = _defaults(choice.plugin, first) if several else None
    for one, groups in enumerate(several):
        for number, group in enumerate(groups):
            options = group.without(MATCH).as_dict()
            ends = [f"[{one}][{number}]"] if len(several) > 1 else [f"[{number}]", f"[0][{number}]"]
            keys = [f"{choice.key}.{GROUPS}{end}" for end in ends]
            key = next((key for key in keys if key in places), f"{choice.key}.{GROUPS}")
            for option in options:
                if known is not None and option not in known:
                    where = places.get(f"{key}.{option}", Place("", key=key))
                    findings.add(where, f"a group has no option {option!r}.", did_you_mean(option, known))
            passed = {name: value for name, value in options.items() if name in choice.plugin.options}
            if said := refusal(choice.plugin, first | passed):
                named = next((name for name in passed if _names(said, name)), "")
                findings.add(places.get(f"{key}.{named}", places.get(key, Place("", key=key))), said)


def _defaults(plugin: Plugin, options: dict[str, Any]) -> list[str] | None:
    """Return the options that groups of an optimizer can have; None if it cannot be made."""
    try:
        return list(_dummy(plugin, options).defaults)
    except Exception:  # noqa: BLE001 - a user's own optimizer may refuse in any way
        return None


def refusal(plugin: Plugin, options: dict[str, Any]) -> str:
    """Why an optimizer cannot be made with these options; empty if it can."""
    try:
        _dummy(plugin, options)
    except Exception as error:  # noqa: BLE001 - a user's own optimizer may refuse in any way
        if plugin.source and "empty parameter list" in str(error):  # it selects parameters of a model, not of this one
            return ""
        return f"{plugin.name} rejects its options: {' '.join(str(error).split()) or type(error).__name__}."
    return ""


def _dummy(plugin: Plugin, options: dict[str, Any]) -> Any:
    """Return the optimizer of two small parameters."""
    import torch

    from clipbench.plugins.optimizers import make_optimizer
    from clipbench.plugins.without_dynamo import avoid_dynamo

    avoid_dynamo()
    named = [(name, torch.nn.Parameter(torch.zeros(size))) for name, size in (("weight", (1, 1)), ("bias", (1,)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_optimizer(plugin, named, options)


def _names(refusal: str, option: str) -> bool:
    words = set(re.findall(r"\w+", refusal.lower().replace("learning rate", "lr")))
    return bool({option, option.removesuffix("s")} & words)


def _where(choice: Choice, changed: str, refusal: str, places: dict[str, Place]) -> Place:
    """The option that the refusal names, or else the one that was changed, or else the component."""
    named = [name for name, _ in choice.axes if _names(refusal, name)]
    for name in (*named, changed):
        if name and f"{choice.key}.{name}" in places:
            return places[f"{choice.key}.{name}"]
    return places.get(choice.key, Place("", key=choice.key))
