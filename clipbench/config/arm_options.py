"""The options that clipbench adds to arms, where they apply to the rule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Lt

from clipbench.config.axes import Axis, OptionSpec
from clipbench.config.group_options import GROUPS, thresholds_spec
from clipbench.config.values import InvalidValue, show, validate
from clipbench.core.trial import ADDED_OPTIONS, AGAINST_LR, FOLLOW_LR, Component
from clipbench.errors import did_you_mean
from clipbench.plugins.registry import Plugin

Place = Literal["model", "tensor", "unit", "column"]
After = Literal["momentum"] | None
Steps = Annotated[int, Ge(0)]
Scope = Literal["batch", "sample"] | dict[Literal["shards"], Annotated[int, Ge(1)]]
Noise = Annotated[float, Ge(0)]
Delta = Annotated[float, Gt(0), Lt(1)] | None

# The options of `adapt` with their types and defaults.
ADAPT: Mapping[str, tuple[Any, float]] = {
    "quantile": (Annotated[float, Gt(0), Lt(1)], 0.5),
    "lr": (Annotated[float, Gt(0)], 0.2),
    "noise": (Annotated[float, Ge(0)], 0.0),
    "min": (Annotated[float, Ge(0)], 0.0),
    "max": (Annotated[float, Gt(0)], math.inf),
}
Adapt = Annotated[float, Gt(0), Lt(1)] | dict[Literal["quantile", "lr", "noise", "min", "max"], float] | None
ADAPTED = "a quantile, or {quantile: 0.5, lr: 0.2, noise: 0, min: 0, max: inf}"
# Schedules of a threshold that follow the learning rate.
FOLLOWING = (FOLLOW_LR, AGAINST_LR)

OFF = "Write null (or inf) to turn it off."
SCOPES = "batch, sample or {shards: n}"
FOLLOWED = f"a schedule, {FOLLOW_LR}, {AGAINST_LR} or null"

Conflict = tuple[str, str, str]  # option, problem, remedy


def arm_options(plugin: Plugin) -> Iterator[OptionSpec]:
    """Yield the added options that apply to a rule."""
    per, weights = plugin.facts.get("per"), plugin.facts.get("on") == "weights"
    if per in get_args(Place):
        yield OptionSpec("per", Place, per)
    yield OptionSpec("exclude", list[str], (), takes_list=True)
    if "threshold" in plugin.options and per != "step":
        yield thresholds_spec(partial(validate_threshold, largest=plugin.facts.get("largest")))
    if "threshold" in plugin.options:
        yield OptionSpec("warmup", Steps, 0, quiet=True)
        yield OptionSpec("schedule", str | dict[str, Any] | None, None, quiet=True, kind="schedule", words=FOLLOWED)
    if plugin.clips:
        yield OptionSpec("error_if_nonfinite", bool, False, quiet=True)
    if not plugin.clips or weights:
        return
    yield OptionSpec("scope", Scope, "batch", quiet=True, reader=validate_scope, words=SCOPES)
    if _can_adapt(plugin):
        yield OptionSpec("adapt", Adapt, None, quiet=True, reader=validate_adapt, words=ADAPTED)
    if per != "step":
        yield OptionSpec("after", After, None, quiet=True)
        if "threshold" in plugin.options:
            yield OptionSpec("noise", Noise, 0.0, quiet=True)
            yield OptionSpec("delta", Delta, None, quiet=True)


def _can_adapt(plugin: Plugin) -> bool:
    """Whether the share of examples that a rule leaves as they are says something about its threshold."""
    facts = plugin.facts
    return "threshold" in plugin.options and facts.get("loose") is not None and not facts.get("init")


def available_arguments(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the arguments that clipbench can pass to a rule, depending on `per` and `on`."""
    always = ("state", "step")
    if facts.get("on") == "weights":
        return (*(("new", "old", "g") if facts["per"] == "element" else ()), "w", "size", *always)
    more = {"element": ("g", "size", "row_mean"), "step": ()}
    return ("n", "m", "w", "model_n", "model_m", *more.get(facts["per"], ("size",)), *always)


def why_missing(plugin: Plugin, option: str) -> str:
    """Return why a rule lacks an option that other rules have; empty if no rule has it."""
    if option == "per":
        return f"{plugin.name} works on each {plugin.facts['per']} and has no option `per`."
    if option not in ADDED_OPTIONS:
        return ""
    if not plugin.clips:
        return f"{plugin.name} does not clip and has no option `{option}`."
    if plugin.facts.get("on") == "weights" and option not in (GROUPS, "error_if_nonfinite"):
        return f"{plugin.name} acts on the weights after the step and has no option `{option}`."
    if "threshold" not in plugin.options and option in (GROUPS, "warmup", "schedule", "noise", "delta"):
        return f"{plugin.name} has no threshold, and therefore no option `{option}`."
    if option == "adapt" and not _can_adapt(plugin):
        why = "keeps state between steps" if plugin.facts.get("init") else "has no threshold that leaves examples alone"
        return f"{plugin.name} {why}, and has no option `adapt`."
    return f"{plugin.name} accepts or rejects the whole step and has no option `{option}`."


def conflicts(plugin: Plugin, axes: Mapping[str, Axis]) -> Iterator[Conflict]:
    """Find options that are valid alone but conflict with the arm's other options."""
    values = {name: axis.values for name, axis in axes.items() if name not in plugin.options}
    scopes = values.get("scope", ("batch",))
    if any(values.get(GROUPS, ())):
        yield from _conflicts_of_groups(plugin, {name: axis.values for name, axis in axes.items()})
    if values.get("after", (None,)) != (None,) and scopes != ("batch",):
        yield "after", "`after` can only be combined with scope: batch.", "Remove one of them."
    if "sample" in scopes and plugin.facts.get("init"):
        text = f"{plugin.name} keeps state between steps, which scope: sample does not support."
        yield "scope", text, "Write scope: batch, or {shards: n}: each shard keeps its own state."
    if any(values.get("noise", ())) and set(scopes) != {"sample"}:
        yield "noise", "noise requires scope: sample, as in DP-SGD.", "Write scope: sample, or remove the noise."
    yield from _conflicts_of_adapt(values, scopes)
    if any(values.get("noise", ())) and any(values.get("warmup", ())):
        yield "warmup", "warmup cannot be combined with noise: during warmup nothing is clipped.", "Remove one of them."
    if values.get("delta", (None,)) != (None,) and not all(values.get("noise", (0,))):
        yield "delta", "delta requires noise.", "Write noise: 1.0, or remove delta."


def _conflicts_of_adapt(values: Mapping[str, tuple[Any, ...]], scopes: tuple[Any, ...]) -> Iterator[Conflict]:
    adapts = [each for each in values.get("adapt", ()) if each is not None]
    if adapts and set(scopes) != {"sample"}:
        text = "adapt requires scope: sample, as it counts the examples that are not clipped."
        yield "adapt", text, "Write scope: sample, or remove it."
    if adapts and any(values.get(GROUPS, ())):
        yield "adapt", "adapt cannot be combined with groups: an example has one norm.", "Remove one of them."
    for adapt, noise in itertools.product(adapts, values.get("noise", ())):
        if noise and noise >= 2 * adapt["noise"]:
            text = f"with noise, that of adapt must be more than half of it, got {adapt['noise']:g} and {noise:g}."
            yield "adapt", text, f"Write adapt: {{quantile: {adapt['quantile']:g}, noise: {noise:g}}}, or a larger one."
            break


def _conflicts_of_groups(plugin: Plugin, values: Mapping[str, tuple[Any, ...]]) -> Iterator[Conflict]:
    instead = [name for name in plugin.facts.get("instead", ()) if any(v is not None for v in values.get(name, ()))]
    if instead:
        yield GROUPS, f"groups have thresholds, which {' and '.join(instead)} would replace.", "Remove one of them."
    largest = plugin.facts.get("largest")
    of_groups = [group["threshold"] if isinstance(group, Component) else group for group in sum(values[GROUPS], ())]
    if (
        largest is not None
        and (over := max((c * g for c in values.get("threshold", ()) for g in of_groups if c and g), default=0.0))
        > largest
    ):
        text = f"threshold times that of a group must be at most {largest:g}, got {over:g}."
        yield GROUPS, text, "Write threshold: 1.0, or leave it out."


def validate_threshold(value: Any, largest: float | None = None) -> float | None:
    """Return a threshold from 0 to the largest that the rule accepts, or None where it is off (null or infinite)."""
    if isinstance(value, int | float) and value < 0:
        raise InvalidValue(f"threshold must be at least 0, got {show(value)}.", OFF)
    number = validate(value, float | None, infinite=True)
    if number is None or math.isinf(number):
        return None
    if largest is not None and number > largest:
        raise InvalidValue(f"threshold must be at most {largest:g}, got {show(value)}.", OFF)
    return float(number)


def validate_adapt(value: Any) -> Component | None:
    """Return how the threshold follows the gradients: a quantile, or a mapping with it and other options."""
    if value is None:
        return None
    given = value if isinstance(value, dict) else {"quantile": value}
    for name in given:
        if name not in ADAPT:
            raise InvalidValue(f"adapt has no option {name!r}.", did_you_mean(name, ADAPT))
    if "quantile" not in given:
        raise InvalidValue("adapt needs a quantile.", "Write {quantile: 0.5}.")
    found = dict[str, Any]()
    for name, (kind, default) in ADAPT.items():
        try:
            found[name] = float(validate(given[name], kind, infinite=name == "max")) if name in given else default
        except InvalidValue as invalid:
            raise InvalidValue(f"{name}: {invalid.text}", invalid.remedy) from None
    if found["min"] >= found["max"]:
        raise InvalidValue(f"min must be less than max, got {found['min']:g} and {found['max']:g}.")
    shown = [f"{name}: {number:g}" for name, number in found.items() if name == "quantile" or number != ADAPT[name][1]]
    label = f"{found['quantile']:g}" if len(shown) == 1 else f"{{{', '.join(shown)}}}"
    return Component.of("", label=label, **found)


def validate_scope(value: Any) -> str | Component:
    """Return `batch`, `sample`, or a component with the number of shards."""
    if isinstance(value, dict) and set(value) == {"shards"}:
        shards = int(validate(value["shards"], Annotated[int, Ge(1)]))
        return "batch" if shards == 1 else Component.of("shards", n=shards, label=f"shards({shards})")
    if value not in ("batch", "sample"):
        near = did_you_mean(str(value), ("batch", "sample"))
        remedy = near if near.startswith("Did") else "Write for example scope: {shards: 4}."
        raise InvalidValue(f"expected batch, sample or {{shards: n}}, got {show(value)}.", remedy)
    return str(value)
