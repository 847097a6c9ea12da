"""What there is to choose from, as text: a line for each plug-in, or one in full."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from clipbench.errors import InputError, Place, Problem
from clipbench.names import UnknownName, did_you_mean
from clipbench.registry import Plugin, catalogue, find
from clipbench.spec.axes import Slot
from clipbench.spec.signatures import signature
from clipbench.spec.values import phrase, show

# What the words of `clipbench list` mean to the registry, and what is said over each list.
KINDS = {
    "strategies": ("strategy", "the arms of `clip`; every one also takes exclude: [pattern]"),
    "models": ("model", ""),
    "data": (
        "data",
        "also: split: {val: 0.2, test: 0.2, seed: 0}, standardize, limit, resize, folds, corrupt; a stream: split",
    ),
    "optimizers": ("optimizer", "torch.optim's own"),
    "losses": ("loss", "of `train.loss`; `output` when the model's output is the loss"),
    "metrics": ("metric", "of `train.metrics`"),
    "schedules": ("schedule", "of `train.schedule`; every one also takes warmup: steps"),
    "noise": ("noise", "of `train.noise`: the laws of what is added to gradients"),
}
COMMON = ("exclude", "split", "standardize", "limit", "impute", "resize", "folds", "fold", "corrupt", "warmup")


def list_lines(kind: str) -> Iterator[str]:
    """A heading, then a line for each plug-in of a kind."""
    registered, remark = KINDS[kind]
    yield f"{kind}: {remark}" if remark else kind
    rows = [(plugin.name, _formula(plugin), _options(plugin)) for plugin in catalogue(registered).values()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, formula, options in rows:
        yield f"  {name:{widths[0]}}  {formula:{widths[1]}}  {options}".rstrip()


def full_lines(kind: str, name: str) -> Iterator[str]:
    """Everything about one plug-in: its docstring, and what each of its options takes."""
    try:
        plugin = find(KINDS[kind][0], name)
    except UnknownName as error:
        raise InputError([Problem(Place(name), error.text, error.remedy)]) from None
    yield name
    yield from (f"  {line}".rstrip() for line in plugin.doc.splitlines())
    slots = signature(plugin)
    yield "" if slots else "\n  no options"
    width = max(map(len, slots), default=0)
    for slot in slots.values():
        default = "required" if slot.required else f"default {_default(slot)}"
        yield f"  {slot.name:{width}}  {phrase(slot.annotation)}; {default}"


def described(kind: str) -> list[dict[str, Any]]:
    """The same as plain values, for `--json`."""
    return [
        {
            "name": plugin.name,
            "summary": plugin.summary,
            "formula": _formula(plugin),
            "options": [_described_option(slot) for slot in signature(plugin).values()],
        }
        for plugin in catalogue(KINDS[kind][0]).values()
    ]


def known_kind(kind: str) -> str:
    """The kind that a word of the command line means: `strategy` is `strategies` too."""
    singular = {registered: plural for plural, (registered, _) in KINDS.items()}
    if kind in KINDS or kind in singular:
        return singular.get(kind, kind)
    raise InputError([Problem(Place(f"list {kind}"), "is nothing that can be listed.", did_you_mean(kind, KINDS))])


def _described_option(slot: Slot) -> dict[str, Any]:
    option = {"name": slot.name, "takes": phrase(slot.annotation), "required": slot.required}
    return option if slot.required else option | {"default": slot.default}


def _formula(plugin: Plugin) -> str:
    """The indented line of the docstring, without the reference at its end; of data, what they are."""
    if plugin.kind == "data":
        return plugin.summary
    indented = [line.strip() for line in plugin.doc.splitlines()[1:] if line.strip()]
    return re.split(r"\s{2,}", indented[0])[0] if indented else plugin.summary


def _options(plugin: Plugin) -> str:
    slots = signature(plugin).values()
    own = [slot for slot in slots if slot.name in plugin.options or slot.name.partition(".")[0] not in COMMON]
    shown = [slot for slot in own if not slot.quiet]
    return ", ".join(slot.name if slot.required else f"{slot.name}={_default(slot)}" for slot in shown)


def _default(slot: Slot) -> str:
    return show(slot.default).strip("'")
