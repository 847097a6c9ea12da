"""What there is to choose from, as text: a reference page for each kind of plug-in, or one of them in full."""

from __future__ import annotations

import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from clipbench.config.axes import OptionSpec
from clipbench.config.options import signature
from clipbench.config.values import describe_type, show
from clipbench.errors import InputError, Place, UnknownName, did_you_mean
from clipbench.plugins.registry import Plugin, catalogue, find

# What the words of `clipbench list` mean to the registry, and what is said over each list.
KINDS = {
    "strategies": ("strategy", "the arms of `clip`"),
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


# Strategies by the file that they stand in, what most people look for first.
FAMILIES = ("norms", "elementwise", "skipping", "adaptive", "weights")
LETTERS = (
    "g: the gradient, or an element of it; n: its norm where the rule looks, at the whole model, each tensor or each "
    "unit (a row of a matrix, a filter, a bias); w: the norm of the weights there; c: the threshold. search: "
    "thresholds that are worth a try; off at: the one at which the rule does nothing."
)
WIDTH = 80


def families(kind: str) -> list[tuple[str, list[Plugin]]]:
    """Plug-ins in the order in which they are shown; strategies under a sentence of each family's."""
    plugins = list(catalogue(KINDS[kind][0]).values())
    if kind != "strategies":
        return [("", plugins)]
    grouped: dict[str, list[Plugin]] = {name: [] for name in FAMILIES}
    for plugin in plugins:
        grouped.setdefault(plugin.function.__module__.rpartition(".")[2], []).append(plugin)
    return [(_sentence(members[0]), members) for members in grouped.values() if members]


def list_lines(kind: str) -> Iterator[str]:
    """A heading, then a few lines for each plug-in of a kind."""
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
    """The name beside the formula; under it what the plug-in does, its options, and where it is from."""
    formula, reference = formula_of(plugin)
    name, indent = f"  {plugin.name:{width}}  ", " " * (width + 4)
    strategy = plugin.kind == "strategy"
    if strategy:
        yield ""
    yield from _wrapped(formula or plugin.summary, indent, name)
    if strategy or plugin.kind in ("model", "noise", "schedule"):
        yield from _wrapped(plugin.summary if formula else "", indent)
    yield from _wrapped("; ".join(part for part in (_options(plugin), *_facts(plugin)) if part), indent)
    if strategy:
        yield from _wrapped(reference, indent)


def _facts(plugin: Plugin) -> Iterator[str]:
    """Of a strategy: where it looks, if no option says it, and the thresholds that matter."""
    facts = plugin.facts
    if facts.get("on") == "weights":
        yield "on the weights, after the step"
    if facts.get("per") in ("element", "step"):
        yield "each element" if facts["per"] == "element" else "the whole step"
    if facts.get("search"):
        yield "search {:g} to {:g}".format(*facts["search"])
    if facts.get("loose") is not None:
        yield f"off at {facts['loose']:g}"


def _common_options() -> Iterator[str]:
    """What clipbench adds to the rules' own options."""
    added = {
        spec.name: spec
        for plugin in catalogue("strategy").values()
        for spec in signature(plugin).values()
        if spec.name not in plugin.options
    }
    yield "\nOptions that rules take beside their own, where they mean something:\n"
    width = max(map(len, added))
    for spec in added.values():
        default = "of the rule" if spec.name == "per" else _default(spec)
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


def _sentence(plugin: Plugin) -> str:
    """The first sentence of the file that a plug-in stands in."""
    text = (sys.modules[plugin.function.__module__].__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=\.)\s", text)[0]


def full_lines(kind: str, name: str) -> Iterator[str]:
    """Everything about one plug-in: its docstring, and what each of its options takes."""
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
    """The same as plain values, for `--json`."""
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
    """The kind that a word of the command line means: `strategy` is `strategies` too."""
    singular = {registered: plural for plural, (registered, _) in KINDS.items()}
    if kind in KINDS or kind in singular:
        return singular.get(kind, kind)
    raise InputError.at(Place(f"list {kind}"), "is nothing that can be listed.", did_you_mean(kind, KINDS))


def _described_option(spec: OptionSpec) -> dict[str, Any]:
    option = {"name": spec.name, "takes": takes(spec), "required": spec.required}
    return option if spec.required else option | {"default": spec.default}


def formula_of(plugin: Plugin) -> tuple[str, str]:
    """The indented line under the first one of a docstring, and the reference behind it."""
    parts = plugin.doc.split("\n\n")
    if plugin.kind == "data" or len(parts) < 2:
        return "", ""
    formula, _, reference = re.sub(r"\s{2,}", "\t", " ".join(parts[1].splitlines())).partition("\t")
    return formula.strip(), reference.replace("\t", " ").strip()


def paragraphs_of(plugin: Plugin) -> list[str]:
    """What a docstring says after its formula; of data, after the first sentence."""
    parts = plugin.doc.split("\n\n")[1 if plugin.kind == "data" else 2 :]
    return [" ".join(part.split()) for part in parts]


def takes(spec: OptionSpec) -> str:
    """What an option takes, and within which bounds."""
    return spec.words or ", ".join([describe_type(spec.annotation), *_bounds(spec.annotation)])


def _bounds(annotation: Any) -> Iterator[str]:
    words = {"ge": "at least", "gt": "over", "le": "at most", "lt": "below"}
    origin = typing.get_origin(annotation)
    inside = isinstance(origin, type) and issubclass(origin, list | tuple | dict)  # bounds of items are not its own
    for part in () if inside else typing.get_args(annotation):
        yield from _bounds(part)
    for known in getattr(annotation, "__metadata__", ()):
        known = [known, *getattr(known, "metadata", ())]
        yield from (f"{words[name]} {getattr(one, name):g}" for one in known for name in words if hasattr(one, name))


def _options(plugin: Plugin) -> str:
    specs = signature(plugin).values()
    own = [spec for spec in specs if spec.name in plugin.options or spec.name.partition(".")[0] not in COMMON]
    shown = [spec for spec in own if not spec.quiet]
    return ", ".join(spec.name if spec.required else f"{spec.name}={_default(spec)}" for spec in shown)


def _default(spec: OptionSpec) -> str:
    return show(spec.default).strip("'")
