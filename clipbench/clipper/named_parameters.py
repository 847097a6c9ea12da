"""The parameters that are clipped, by name, and their gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from clipbench.core.trial import Component
from clipbench.engine.clipping.threshold_groups import groups_of_arm, threshold_groups
from clipbench.errors import InputError, Place, Unsupported
from clipbench.planning import arm_checks

Parameters = nn.Module | Iterable[Any]

EXPECTED = "Pass a module, its parameters() or its named_parameters()."


def named_parameters(given: Parameters) -> dict[str, Tensor]:
    """Return each parameter once; those without a name are named by their number."""
    if isinstance(given, Tensor):  # as torch's own functions take it
        given = [given]
    if isinstance(given, nn.parallel.DistributedDataParallel | nn.DataParallel):  # it puts `module.` before names
        given = given.module
    pairs = given.named_parameters() if isinstance(given, nn.Module) else given
    found, seen = dict[str, Tensor](), set[int]()
    for number, pair in enumerate(pairs):
        name, parameter = pair if isinstance(pair, tuple) and len(pair) == 2 else (str(number), pair)
        if not isinstance(parameter, Tensor) or not isinstance(name, str):
            raise InputError.at(Place("parameters"), f"expected parameters, got {type(pair).__name__}.", EXPECTED)
        if parameter.is_complex():
            raise Unsupported(f"{name} is complex.", "Pass the parameters of real numbers.")
        if id(parameter) not in seen and parameter.numel():
            seen.add(id(parameter))
            found[name.replace("_orig_mod.", "")] = parameter  # which torch.compile puts into names
    if not found:
        raise InputError.at(Place("parameters"), "there are none.", EXPECTED)
    return found


def check_names(arm: Component, names: list[str]) -> None:
    """Refuse patterns that match no parameter, and groups or exclusions that leave none."""
    problems = [*arm_checks.unknown_excludes([("", arm)], set(names))]
    problems += [] if problems else arm_checks.nothing_left([("", arm)], "the model", names)
    if problems:
        first = problems[0]
        numbered = all(name.isdigit() for name in names)
        remedy = "Pass the module or its named_parameters(): these have no names." if numbered else first.remedy
        raise InputError.at(Place(arm.arm, key=first.key.lstrip(".")), first.text, remedy)
    if not groups_of_arm(arm) and not threshold_groups(arm, names):
        raise InputError.at(Place(arm.arm), "no parameter is left to clip.")
