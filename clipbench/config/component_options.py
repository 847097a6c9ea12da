"""The options of a component: those of its function's signature, and those that clipbench adds to its kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from clipbench.config import units
from clipbench.config.arm_options import arm_options, validate_threshold, why_missing
from clipbench.config.axes import MOST_POINTS, OptionSpec, frozen
from clipbench.config.group_options import GROUPS, groups_spec
from clipbench.config.values import InvalidValue, effective_annotation, show, validate
from clipbench.errors import did_you_mean
from clipbench.plugins.registry import REQUIRED, Option, Plugin

# Options of data with options of their own: `split: {val: 0.2}` is `split.val`.
SECTIONS = {
    "split": "Write split: {val: 0.2, test: 0.2}.",
    "corrupt": "Write corrupt: {missing: 0.1}.",
    "read": "Write read: {workers: 2}.",
}
# Options of data that are a fixed set of examples, which a stream is not.
FIXED = ("standardize", "limit", "impute", "corrupt", "folds", "resize", "read")

Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
NumberOf = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

AUGMENT = OptionSpec(
    "augment", str | dict[str, Any] | None, None, quiet=True, kind="augmentation", words="an augmentation, or null"
)
# How the examples of a PyTorch data set, or of arrays in files, are read, by a data function of the user's own.
READ = (
    OptionSpec("read.workers", NumberOf, 0, quiet=True, aside=True),
    OptionSpec("read.prefetch", AtLeastOne, 2, quiet=True, aside=True),
    OptionSpec("read.in_memory", bool | None, None, quiet=True, aside=True),
)

# Options of a script beside its own arguments: those of every trial.
SCRIPT = (
    OptionSpec("threads", AtLeastOne, 1, quiet=True),
    OptionSpec("timeout", float | None, None, quiet=True, aside=True, reader=units.seconds),
    OptionSpec("memory", int | None, None, quiet=True, aside=True, reader=units.size),
    OptionSpec("metrics", dict[str, Any], (), quiet=True, aside=True, reader=lambda value: _directions(value)),
    OptionSpec("target", dict[str, float] | None, None, quiet=True, reader=lambda value: _target(value)),
    OptionSpec("diverge_above", Annotated[float, Field(gt=0)] | None, None, quiet=True),
)


def signature(plugin: Plugin) -> dict[str, OptionSpec]:
    """Every option that a user may set; ValueError or TypeError where a function does not say its own."""
    specs = {name: _spec(option, plugin) for name, option in plugin.options.items()}
    common = _common(plugin)
    if plugin.kind == "optimizer" and "named" not in plugin.given:  # one that asks for names makes groups itself
        # The first values of the state are the same for all groups, as in torch.
        starts = plugin.facts["formula"].slots.values() if plugin.facts.get("formula") else ()
        in_groups = {name: spec for name, spec in specs.items() if name not in starts}
        common = {GROUPS: groups_spec(in_groups, any_option=bool(plugin.source))}
    return specs | {name: spec for name, spec in common.items() if name not in specs}


def _spec(option: Option, plugin: Plugin) -> OptionSpec:
    if plugin.kind == "strategy" and option.name == "threshold":
        return _threshold_spec(option, plugin.facts.get("largest"))
    own = ":" in plugin.name
    annotation = effective_annotation(option, own)
    default = option.default
    if default is not REQUIRED:  # `0` and `0.0` make the same trial
        with contextlib.suppress(InvalidValue, TypeError, ValueError):
            default = validate(_listed(default), annotation, infinite=True)
    infinite = own or plugin.kind == "strategy"
    quiet = option.name in plugin.facts.get("quiet", ())
    return OptionSpec(
        option.name, annotation, frozen(default), option.takes_list, quiet, infinite=infinite, takes_default=True
    )


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _threshold_spec(option: Option, largest: float | None) -> OptionSpec:
    reader = partial(validate_threshold, largest=largest)
    annotation = NotNegative if largest is None else Annotated[float, Field(ge=0, le=largest)]
    default = REQUIRED if option.default is REQUIRED else reader(option.default)
    return OptionSpec("threshold", annotation | None, default, reader=reader)


def _common(plugin: Plugin) -> dict[str, OptionSpec]:
    added: Iterable[OptionSpec] = ()
    if plugin.is_stream:
        added = (
            OptionSpec("split.val", NumberOf, 1000),
            OptionSpec("split.test", NumberOf, 10000),
            OptionSpec("split.seed", NumberOf, 0),
            AUGMENT,
        )
    elif plugin.kind == "data":
        meant = bool(plugin.facts.get("standardize", False))
        added = (
            OptionSpec("split.val", Fraction, 0.2),
            OptionSpec("split.test", Fraction, 0.2),
            OptionSpec("split.seed", Seed, 0),
            OptionSpec("standardize", bool | None, meant, reader=partial(_standardize, default=meant)),
            OptionSpec("limit", AtLeastOne | None, None),
            OptionSpec("impute", Literal["mean", "median"] | None, None, quiet=True),
            OptionSpec("resize", AtLeastOne | None, None, quiet=True),
            OptionSpec("folds", Annotated[int, Field(ge=2, le=MOST_POINTS)] | None, None, quiet=True),
            OptionSpec("fold", NumberOf | None, None, quiet=True),
            OptionSpec("corrupt.missing", Fraction, 0.0, quiet=True),
            OptionSpec("corrupt.label_flip", Share, 0.0, quiet=True),
            OptionSpec("corrupt.outliers", Share, 0.0, quiet=True),
            OptionSpec("corrupt.noise", NotNegative, 0.0, quiet=True),
            OptionSpec("corrupt.seed", NumberOf, 0, quiet=True),
            AUGMENT,
            *(READ if ":" in plugin.name and not plugin.facts.get("library") else ()),
        )
    elif plugin.kind == "strategy":
        added = arm_options(plugin)
    elif plugin.kind == "script":
        added = SCRIPT
    elif plugin.kind == "schedule":
        added = (OptionSpec("warmup", NumberOf, 0),)
    return {spec.name: spec for spec in added}


def _standardize(value: Any, default: bool) -> bool:
    chosen = validate(value, bool | None)
    return default if chosen is None else bool(chosen)


def _directions(value: Any) -> tuple[tuple[str, str], ...]:
    """Return the metrics that a script measures, each with its direction."""
    if not isinstance(value, dict):
        raise InvalidValue(f"expected metrics and their directions, got {show(value)}.", "Write {bleu: maximize}.")
    for name, direction in value.items():
        if "/" in str(name):
            raise InvalidValue(f"a metric has no part, got {show(name)}.", f"Write {str(name).rpartition('/')[2]}.")
        if direction not in ("maximize", "minimize"):
            text = f"the direction of {name} must be maximize or minimize, got {show(direction)}."
            raise InvalidValue(text, did_you_mean(str(direction), ("maximize", "minimize")))
    return tuple((str(name), str(direction)) for name, direction in value.items())


def _target(value: Any) -> tuple[str, float] | None:
    """Return the measure that counts the reports to a target, and the value to reach."""
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) != 1:
        raise InvalidValue(f"expected one measure and its value, got {show(value)}.", "Write {val/loss: 2.5}.")
    [(measure, reached)] = value.items()
    if str(measure).partition("/")[0] not in ("val", "train"):
        raise InvalidValue(f"expected a measure of clip.report, got {show(measure)}.", "Write for example val/loss.")
    return str(measure), float(validate(reached, float))


def why_unknown(plugin: Plugin, option: str, specs: Mapping[str, OptionSpec]) -> tuple[str, str]:
    """Return why a component has no such option, and what may be meant."""
    if plugin.is_stream and option in FIXED:
        return f"{plugin.name} is a stream, which does not support `{option}`.", ""
    if plugin.kind == "strategy" and (text := why_missing(plugin, option)):
        return text, ""
    if plugin.kind == "optimizer" and option == GROUPS:
        return f"{plugin.name} asks for `named` parameters and makes groups itself.", "Let it ask for `params`."
    if option in SECTIONS and plugin.kind == "data":
        return "expected a mapping.", SECTIONS[option]
    if not specs:
        return f"{plugin.name} takes no options.", ""
    section = option.rpartition(".")[0]
    known = [name for name in specs if name.rpartition(".")[0] == section]
    known += list(SECTIONS) if plugin.kind == "data" and not section else []
    return f"{plugin.name} has no option {option!r}.", did_you_mean(option, known)
