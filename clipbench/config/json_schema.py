"""The JSON Schema of the YAML, for editors: from the models that validate it, and the options of every plug-in."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter

from clipbench.config.arm_options import FOLLOWING
from clipbench.config.axes import KINDS as RANGES
from clipbench.config.axes import MOST_POINTS, OptionSpec
from clipbench.config.component_options import SCRIPT, signature
from clipbench.config.frozen_section import Frozen
from clipbench.config.load_experiment import KINDS
from clipbench.config.script_section import KIND as SCRIPT_KEY
from clipbench.config.search_space import PATH
from clipbench.config.sections import Claim, ReportSection, Section
from clipbench.config.sweep_section import Sweep
from clipbench.config.train_section import OF_COMPONENTS, Train
from clipbench.config.values import json_schema
from clipbench.core.experiment_name import NAME
from clipbench.plugins.registry import catalogue

Json = dict[str, Any]

# Paths that an editor may offer.
_SEARCHED = ("optimizer.lr", "clip.threshold")
_INNER = ("loss", "metric", *OF_COMPONENTS, "augmentation")  # kinds that are options of sections
_OWN = {"type": "string", "pattern": ":"}  # package.module:function or ./file.py:function
_ENDS = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_POINTS = {"type": "integer", "minimum": 1, "maximum": MOST_POINTS, "default": 5}
_RANGE = {
    "type": "object",
    "properties": {"log": _ENDS, "linear": _ENDS, "points": _POINTS},
    "additionalProperties": False,
    "oneOf": [{"required": ["log"]}, {"required": ["linear"]}],
}
_RANGE_REF = {"$ref": "#/$defs/range"}


class _Sections(Section):
    """The sections of the YAML without those that name plug-ins."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    train: Train
    seeds: PositiveInt | Annotated[list[NonNegativeInt], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
    report: ReportSection
    sweep: Sweep
    claims: list[Claim]
    folder: Annotated[str, Field(description="Where ./file.py:function is looked up.")]
    frozen: Frozen


def experiment_schema() -> Json:
    """Return the schema of a whole experiment, against which an editor can check it while it is written."""
    document: Json = TypeAdapter(_Sections).json_schema()
    components = {section: _one_or_many(_ref(kind)) for section, kind in KINDS.items()}
    components["data"] = {"anyOf": [components["data"], {"enum": ["none", None]}]}
    definitions: Json = document["$defs"]
    definitions["Train"]["properties"] = _train(definitions["Train"]["properties"])
    document["properties"]["train"] = {"anyOf": [_script(), {"$ref": "#/$defs/Train"}]}
    definitions["Sweep"]["properties"]["search"] = _search()
    kinds = {kind: _component(kind) for kind in (*KINDS.values(), *_INNER)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "clipbench experiment",
        "type": "object",
        "additionalProperties": False,
        "required": ["clip"],
        "if": {"properties": {"train": {"required": [SCRIPT_KEY]}}, "required": ["train"]},
        "else": {"required": ["model", "optimizer"]},
        "properties": components | document["properties"],
        "$defs": definitions | {"range": _RANGE} | kinds,
    }


def _component(kind: str) -> Json:
    names = {"enum": list(catalogue(kind))}
    own = {"type": "object", "properties": {"name": _OWN}, "required": ["name"]}
    return {"anyOf": [names, _OWN, *(_options(kind, name) for name in catalogue(kind)), own]}


def _options(kind: str, name: str) -> Json:
    """A mapping with the name of one plug-in and its options."""
    plugin = catalogue(kind)[name]
    found = signature(plugin)
    properties: Json = {"name": {"const": name}}
    for spec in found.values():
        section, _, part = spec.name.partition(".")
        if part:
            nested = properties.setdefault(section, {"type": "object", "properties": {}, "additionalProperties": False})
            nested["properties"][part] = _option(spec)
        else:
            properties[spec.name] = _option(spec)
    return {
        "type": "object",
        "description": plugin.summary,
        "properties": properties,
        "required": ["name", *(spec.name for spec in found.values() if spec.required)],
        "additionalProperties": plugin.open,
    }


def _option(spec: OptionSpec) -> Json:
    if spec.kind:
        words = [None, *FOLLOWING] if spec.kind == "schedule" else [None]
        value: Json = {"anyOf": [{"enum": words}, _ref(spec.kind)]}
    else:
        value = json_schema(spec.annotation)
        value.pop("title", None)
    return _axis(value, spec.takes_list) | ({} if spec.required else {"default": spec.default})


def _axis(value: Json, takes_list: bool = False) -> Json:
    """A value, a list of values or ranges, or a range."""
    item = value if takes_list else {"anyOf": [value, _RANGE_REF]}
    return {"anyOf": [value, {"type": "array", "items": item}, _RANGE_REF]}


def _train(options: Json) -> Json:
    """The options of `train`, each of which may be an axis, and those that name plug-ins."""
    axes = {}
    for name, value in options.items():
        described = {key: value.pop(key) for key in ("title", "default") if key in value}
        axes[name] = _axis(value) | described
    del axes["steps"]["default"]  # 0 says that `epochs` counts; it is not a number that the YAML takes
    axes["loss"] = _one_or_many({"anyOf": [{"enum": ["output", "auto"]}, _ref("loss")]})
    axes |= {kind: _one_or_many({"anyOf": [{"type": "null"}, _ref(kind)]}) for kind in OF_COMPONENTS}
    axes["metrics"] = {"type": "array", "items": _ref("metric")}
    return axes


def _script() -> Json:
    """The options of `train` that names a script: beside these, its own arguments."""
    properties = {spec.name: {"default": spec.default} for spec in SCRIPT} | {
        SCRIPT_KEY: _one_or_many({"type": "string"}),
        "threads": _axis({"type": "integer", "minimum": 1}) | {"default": 1},
        "metrics": {"type": "object", "additionalProperties": {"enum": ["maximize", "minimize"]}},
    }
    return {"type": "object", "properties": properties, "required": [SCRIPT_KEY]}


def _search() -> Json:
    """The options that can be searched by their paths; those of the user's own are known to the check alone."""
    whole_range = _RANGE | {"properties": dict.fromkeys(RANGES, _ENDS)}
    space = {"anyOf": [whole_range, {"type": "array", "minItems": 2}]}
    return {
        "type": "object",
        "properties": dict.fromkeys(_SEARCHED, space),
        "patternProperties": {f"^{PATH.pattern}$": space},
        "additionalProperties": False,
    }


def _ref(kind: str) -> Json:
    return {"$ref": f"#/$defs/{kind}"}


def _one_or_many(item: Json) -> Json:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}
