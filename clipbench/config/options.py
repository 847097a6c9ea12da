"""The options of a component: those of its function's signature, and those that clipbench adds to its kind."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from clipbench.config.arm_options import arm_options
from clipbench.config.axes import OptionSpec, frozen
from clipbench.config.values import InvalidValue, effective_annotation, show, takes_integers, validate, validate_default
from clipbench.plugins.registry import REQUIRED, Option, Plugin

# Options of data with options of their own: `split: {val: 0.2}` is `split.val`.
SECTIONS = {"split": "Write split: {val: 0.2, test: 0.2}.", "corrupt": "Write corrupt: {missing: 0.1}."}
# Options of data that are a fixed set of examples, which a stream is not.
FIXED = ("standardize", "limit", "impute", "corrupt", "folds", "resize")

Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
NumberOf = Annotated[int, Field(ge=0)]

OFF = "Write null (or inf) to turn it off."


def signature(plugin: Plugin) -> dict[str, OptionSpec]:
    """Every option that a user may set; ValueError or TypeError where a function does not say its own."""
    specs = {name: _spec(option, plugin) for name, option in plugin.options.items()}
    return specs | {name: spec for name, spec in _common(plugin).items() if name not in specs}


def _spec(option: Option, plugin: Plugin) -> OptionSpec:
    if plugin.kind == "strategy" and option.name == "threshold":
        return _threshold_spec(option, plugin.facts.get("largest"))
    own = ":" in plugin.name
    annotation = effective_annotation(option, own)
    option = Option(option.name, annotation, option.default)
    default = REQUIRED if option.default is REQUIRED else frozen(validate_default(option))
    reader = partial(_validate_or_default, option=option, infinite=own or plugin.kind == "strategy")
    return OptionSpec(option.name, reader, annotation, default, option.takes_list, takes_integers(annotation))


def _validate_or_default(value: Any, option: Option, infinite: bool) -> Any:
    try:
        return validate(value, option.annotation, infinite=infinite)
    except InvalidValue:
        # `def f(width: int = None)`: a function's own default is valid even if its annotation excludes it.
        if is_plain(option.default) and show(value) == show(option.default):
            return option.default
        raise


def _threshold_spec(option: Option, largest: float | None) -> OptionSpec:
    reader = partial(validate_threshold, largest=largest)
    annotation = NotNegative if largest is None else Annotated[float, Field(ge=0, le=largest)]
    default = REQUIRED if option.default is REQUIRED else reader(option.default)
    return OptionSpec("threshold", reader, annotation | None, default)


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


def _common(plugin: Plugin) -> dict[str, OptionSpec]:
    if plugin.is_stream:
        return {
            "split.val": _added("split.val", NumberOf, 1000),
            "split.test": _added("split.test", NumberOf, 10000),
            "split.seed": _added("split.seed", NumberOf, 0),
        }
    if plugin.kind == "data":
        return {
            "split.val": _added("split.val", Fraction, 0.2),
            "split.test": _added("split.test", Fraction, 0.2),
            "split.seed": _added("split.seed", NumberOf, 0),
            "standardize": _standardize(bool(plugin.facts.get("standardize", False))),
            "limit": _added("limit", Annotated[int, Field(ge=1)] | None, None),
            "impute": _added("impute", Literal["mean", "median"] | None, None, quiet=True),
            "resize": _added("resize", Annotated[int, Field(ge=1)] | None, None, quiet=True),
            "folds": _added("folds", Annotated[int, Field(ge=2)] | None, None, quiet=True),
            "fold": _added("fold", NumberOf | None, None, quiet=True),
            "corrupt.missing": _added("corrupt.missing", Fraction, 0.0, quiet=True),
            "corrupt.label_flip": _added("corrupt.label_flip", Share, 0.0, quiet=True),
            "corrupt.outliers": _added("corrupt.outliers", Share, 0.0, quiet=True),
            "corrupt.noise": _added("corrupt.noise", NotNegative, 0.0, quiet=True),
            "corrupt.seed": _added("corrupt.seed", NumberOf, 0, quiet=True),
        }
    if plugin.kind == "strategy":
        return arm_options(plugin)
    if plugin.kind == "schedule":
        return {"warmup": _added("warmup", Annotated[int, Field(ge=0)], 0)}
    return {}


def _added(name: str, annotation: Any, default: Any, quiet: bool = False) -> OptionSpec:
    reader = partial(validate, annotation=annotation)
    return OptionSpec(name, reader, annotation, default, integer=takes_integers(annotation), quiet=quiet)


def _standardize(default: bool) -> OptionSpec:
    def reader(value: Any) -> bool:
        chosen = validate(value, bool | None)
        return default if chosen is None else bool(chosen)

    return OptionSpec("standardize", reader, bool | None, default)


def is_plain(value: Any) -> bool:
    """Whether a default can stand in YAML; others (a function, a module) the plug-in fills in itself."""
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    return value is None or (isinstance(value, bool | int | float | str) and value == value)
