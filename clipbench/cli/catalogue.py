"""The text of `clipbench list`: the components of each kind, or one of them in full."""

from __future__ import annotations

import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from clipbench.config.axes import OptionSpec
from clipbench.config.component_options import signature
from clipbench.config.values import describe_type, show
from clipbench.errors import InputError, Place, UnknownName, did_you_mean
from clipbench.plugins.registry import Plugin, catalogue, find

# The registry's name for each word of `clipbench list`, and a remark above each list.
KINDS = {
    "strategies": ("strategy", "the arms of `clip`"),
    "models": ("model", ""),
    "data": (
        "data",
        "all take split: {val: 0.2, test: 0.2, seed: 0}, standardize, limit, resize, folds, corrupt, augment; streams: "
        "split, augment",
    ),
    "optimizers": ("optimizer", "from torch.optim"),
    "losses": ("loss", "for `train.loss`; `output` where the output of the model is the loss"),
    "metrics": ("metric", "for `train.metrics`"),
    "schedules": ("schedule", "for `train.schedule`; all take warmup: steps"),
    "noise": ("noise", "for `train.noise`: distributions of the noise added to gradients"),
    "augmentations": ("augmentation", "for `augment` of data: random changes of the batches that are trained on"),
}
COMMON = (
    *("exclude", "split", "standardize", "limit", "impute", "resize", "folds", "fold", "corrupt", "augment"),
    "warmup",
)
# Files of strategies in the order in which they are listed: the common ones first.
FAMILIES = ("norms", "elementwise", "skipping", "adaptive", "weights")
LETTERS = (
    "g: the gradient or one of its elements; n: the norm of the gradient of the model, of each tensor or of each unit "
    "(a row of a matrix, a filter, a bias); w: the norm of the weights of the same; c: the threshold. search: the "
    "range of thresholds to search; off at: the threshold that never clips."
)
WIDTH = 80


def families(kind: str) -> list[tuple[str, list[Plugin]]]:
    """The components of a kind in the order of the list; strategies by families, each with its sentence."""
    plugins = list(catalogue(KINDS[kind][0]).values())
    if kind != "strategies":
        return [("", plugins)]
    grouped: dict[str, list[Plugin]] = {name: [] for name in FAMILIES}
    for plugin in plugins:
        grouped.setdefault(plugin.function.__module__.rpartition(".")[2], []).append(plugin)
    return [(members[0].family, members) for members in grouped.values() if members]


def list_lines(kind: str) -> Iterator[str]:
    """A heading, then a few lines for each component of a kind."""
    _, remark = KINDS[kind]
    yield from _wrapped(f"{kind}: {remark}" if remark else kind, "")
    if kind == "strategies":
        yield from _wrapped(LETTERS, "")
    width = max(len(plugin.name) for _, plugins in families(kind) for plugin in plugins)
    for sentence, plugins in families(kind):
        yield from ["", *_wrapped(sentence, "")] if sentence else ()
        for plugin in plugins:
            yield from _entry(plugin, width)
    if kind == "strategies":
        yield from _common_options()


def _entry(plugin: Plugin, width: int) -> Iterator[str]:
    """The name and the formula; below them what the component does, its options and its reference."""
    formula, reference = formula_of(plugin)
    name, indent = f"  {plugin.name:{width}}  ", " " * (width + 4)
    strategy = plugin.kind == "strategy"
    if strategy:
        yield ""
    yield from _wrapped(formula or plugin.summary, indent, name)
    if strategy or plugin.kind in ("model", "noise", "schedule", "augmentation"):
        yield from _wrapped(plugin.summary if formula else "", indent)
    yield from _wrapped("; ".join(part for part in (_options(plugin), *_facts(plugin)) if part), indent)
    if strategy:
        yield from _wrapped(reference, indent)


def _facts(plugin: Plugin) -> Iterator[str]:
    """Where a strategy acts, if no option says it, and its special thresholds."""
    facts = plugin.facts
    if facts.get("on") == "weights":
        yield "acts on the weights, after the step"
    if facts.get("per") in ("element", "step"):
        yield "per element" if facts["per"] == "element" else "per step"
    if facts.get("search"):
        yield "search {:g} to {:g}".format(*facts["search"])
    if facts.get("loose") is not None:
        yield f"off at {facts['loose']:g}"


def _common_options() -> Iterator[str]:
    """The options that clipbench adds to those of the rules."""
    added = {
        spec.name: spec
        for plugin in catalogue("strategy").values()
        for spec in signature(plugin).values()
        if spec.name not in plugin.options
    }
    yield "\nCommon options of the rules, where they apply:\n"
    width = max(map(len, added))
    for spec in added.values():
        default = "by rule" if spec.name == "per" else _default(spec)
        yield from _wrapped(f"{takes(spec)}; default {default}", " " * (width + 4), f"  {spec.name:{width}}  ")


def _wrapped(text: str, indent: str, first: str | None = None) -> Iterator[str]:
    yield from textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def full_lines(kind: str, name: str) -> Iterator[str]:
    """One component in full: its docstring and its options."""
    try:
        plugin = find(KINDS[kind][0], name)
    except UnknownName as error:
        raise InputError.at(Place(name), error.text, error.remedy) from None
    formula, reference = formula_of(plugin)
    yield plugin.name
    yield from _wrapped(plugin.summary, "  ")
    yield from ["", *_wrapped(formula, "    "), ""] if formula else [""]
    yield from _wrapped(reference, "  ")
    for paragraph in paragraphs_of(plugin):
        yield from ["", *_wrapped(paragraph, "  ")]
    yield from ["", *_wrapped("; ".join(_facts(plugin)), "  ")] if any(_facts(plugin)) else ()
    specs = signature(plugin)
    yield "" if specs else "\n  no options"
    width = max(map(len, specs), default=0)
    for spec in specs.values():
        default = "required" if spec.required else f"default {_default(spec)}"
        yield from _wrapped(f"{takes(spec)}; {default}", " " * (width + 4), f"  {spec.name:{width}}  ")


def described(kind: str) -> list[dict[str, Any]]:
    """The components of a kind as plain values, for `--json`."""
    return [_described(plugin, family) for family, plugins in families(kind) for plugin in plugins]


def _described(plugin: Plugin, family: str) -> dict[str, Any]:
    formula, reference = formula_of(plugin)
    found = {
        "name": plugin.name,
        "summary": plugin.summary,
        "formula": formula or plugin.summary,
        "reference": reference,
        "options": [_described_option(spec) for spec in signature(plugin).values()],
    }
    if plugin.kind != "strategy":
        return found
    facts = plugin.facts
    search = list(facts["search"]) if facts["search"] else None
    return found | {
        "family": family,
        "looks_at": facts["per"],
        "on": facts["on"],
        "search": search,
        "off_at": facts["loose"],
    }


def known_kind(kind: str) -> str:
    """Return the kind for a word of the command line: `strategy` means `strategies`."""
    singular = {registered: plural for plural, (registered, _) in KINDS.items()}
    if kind in KINDS or kind in singular:
        return singular.get(kind, kind)
    raise InputError.at(Place(f"list {kind}"), "unknown kind of component.", did_you_mean(kind, KINDS))


def _described_option(spec: OptionSpec) -> dict[str, Any]:
    option = {"name": spec.name, "takes": takes(spec), "required": spec.required}
    return option if spec.required else option | {"default": spec.default}


def formula_of(plugin: Plugin) -> tuple[str, str]:
    """The formula and the reference, which are the second paragraph of a docstring."""
    parts = plugin.doc.split("\n\n")
    if plugin.kind == "data" or len(parts) < 2:
        return "", ""
    formula, _, reference = re.sub(r"\s{2,}", "\t", " ".join(parts[1].splitlines())).partition("\t")
    return formula.strip(), reference.replace("\t", " ").strip()


def paragraphs_of(plugin: Plugin) -> list[str]:
    """The paragraphs of a docstring after its formula; for data, after its first one."""
    parts = plugin.doc.split("\n\n")[1 if plugin.kind == "data" else 2 :]
    return [" ".join(part.split()) for part in parts]


def takes(spec: OptionSpec) -> str:
    """The type of an option and its bounds."""
    return spec.words or ", ".join([describe_type(spec.annotation), *_bounds(spec.annotation)])


def _bounds(annotation: Any) -> Iterator[str]:
    words = {"ge": "at least", "gt": "over", "le": "at most", "lt": "below"}
    origin = typing.get_origin(annotation)
    inside = isinstance(origin, type) and issubclass(origin, list | tuple | dict)  # with bounds of items
    for part in () if inside else typing.get_args(annotation):
        yield from _bounds(part)
    for known in getattr(annotation, "__metadata__", ()):
        known = [known, *getattr(known, "metadata", ())]
        yield from (f"{words[name]} {getattr(one, name):g}" for one in known for name in words if hasattr(one, name))


def _options(plugin: Plugin) -> str:
    specs = signature(plugin).values()
    own = [spec for spec in specs if spec.name in plugin.options or spec.name.partition(".")[0] not in COMMON]
    shown = [spec for spec in own if spec.name in plugin.options or not spec.quiet]
    return ", ".join(spec.name if spec.required else f"{spec.name}={_default(spec)}" for spec in shown)


def _default(spec: OptionSpec) -> str:
    return show(spec.default).strip("'")
