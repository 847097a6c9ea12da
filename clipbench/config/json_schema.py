"""The JSON Schema of the YAML, for editors: sections, and the options of every built-in component."""

from __future__ import annotations

from typing import Any

from clipbench.config.arm_options import FOLLOWING
from clipbench.config.axes import KINDS as RANGES
from clipbench.config.axes import MOST_POINTS, OptionSpec
from clipbench.config.experiment_name import NAME
from clipbench.config.load_experiment import KINDS
from clipbench.config.options import signature
from clipbench.config.search_space import PATH
from clipbench.config.sections import Claim, ReportSection, Section, specs
from clipbench.config.sweep_section import Sweep
from clipbench.config.train_section import OF_COMPONENTS, EarlyStop, Train
from clipbench.config.values import json_schema
from clipbench.plugins.registry import catalogue

Json = dict[str, Any]

_WHOLE = {"type": "integer", "minimum": 1}
# Paths that an editor may offer.
_SEARCHED = ("optimizer.lr", "clip.threshold")
_OF_TRAIN = ("loss", "metric", *OF_COMPONENTS)
_OWN = {"type": "string", "pattern": ":"}  # package.module:function or ./file.py:function
_ENDS = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_POINTS = {"type": "integer", "minimum": 1, "maximum": MOST_POINTS, "default": 5}
_RANGE = {
    "type": "object",
    "properties": {"log": _ENDS, "linear": _ENDS, "points": _POINTS},
    "additionalProperties": False,
    "oneOf": [{"required": ["log"]}, {"required": ["linear"]}],
}


def experiment_schema() -> Json:
    """One document that an editor can check an experiment against while it is written."""
    sections = {section: _one_or_many({"$ref": f"#/$defs/{kind}"}) for section, kind in KINDS.items()}
    sections["data"] = {"anyOf": [sections["data"], {"enum": ["none", None]}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "clipbench experiment",
        "type": "object",
        "additionalProperties": False,
        "required": ["model", "optimizer", "clip"],
        "properties": {
            "name": {"type": "string", "pattern": f"^{NAME}$"},
            **sections,
            "train": _train(),
            "seeds": _seeds(),
            "report": _section(ReportSection),
            "sweep": _sweep(),
            "claims": {"type": "array", "items": _section(Claim)},
            "folder": {"type": "string", "description": "Where ./file.py:function is looked up."},
        },
        "$defs": {"range": _RANGE} | {kind: _component(kind) for kind in (*KINDS.values(), *_OF_TRAIN)},
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
            nested["properties"][part] = _axis(spec)
        else:
            properties[spec.name] = _axis(spec)
    return {
        "type": "object",
        "description": plugin.summary,
        "properties": properties,
        "required": ["name", *(spec.name for spec in found.values() if spec.required)],
        "additionalProperties": plugin.open,
    }


def _axis(spec: OptionSpec) -> Json:
    value = _value(spec)
    described = {} if spec.required else {"default": spec.default}
    many = {
        "type": "array",
        "items": value if spec.takes_list else {"anyOf": [value, {"$ref": "#/$defs/range"}]},
    }
    return {"anyOf": [value, many, {"$ref": "#/$defs/range"}]} | described


def _value(spec: OptionSpec) -> Json:
    if spec.kind:
        return {"anyOf": [{"enum": [None, *FOLLOWING]}, {"$ref": f"#/$defs/{spec.kind}"}]}
    schema = json_schema(spec.annotation)
    schema.pop("title", None)
    return schema


def _train() -> Json:
    axes = {name: _axis(spec) for name, spec in specs(Train).items() if name not in ("steps", "target")}
    axes["steps"] = {"anyOf": [_WHOLE, {"$ref": "#/$defs/range"}]}
    axes["loss"] = _one_or_many({"anyOf": [{"enum": ["output", "auto"]}, {"$ref": "#/$defs/loss"}]})
    for kind in OF_COMPONENTS:
        axes[kind] = _one_or_many({"anyOf": [{"type": "null"}, {"$ref": f"#/$defs/{kind}"}]})
    axes["early_stop"] = _one_or_many({"anyOf": [{"type": "null"}, _WHOLE, _section(EarlyStop)]})
    axes["metrics"] = {"type": "array", "items": {"$ref": "#/$defs/metric"}}
    axes["target"] = {
        "type": ["object", "null"],
        "additionalProperties": {"type": "number"},
        "maxProperties": 1,
    }
    return {"type": "object", "properties": axes, "additionalProperties": False}


def _seeds() -> Json:
    seed = {"type": "integer", "minimum": 0}
    return {"anyOf": [_WHOLE, {"type": "array", "items": seed, "uniqueItems": True}]}


def _section(section: type[Section]) -> Json:
    return section.model_json_schema()


def _sweep() -> Json:
    schema = _section(Sweep)
    direction = {"enum": ["maximize", "minimize"]}
    several: Json = {"type": "array", "minItems": 1, "uniqueItems": True}
    schema["properties"] |= {
        "timeout": {"type": ["number", "string", "null"]},
        "objective": {"anyOf": [{"type": ["string", "null"]}, several | {"items": {"type": "string"}}]},
        "direction": {"anyOf": [{"type": "null"}, direction, {"type": "array", "minItems": 1, "items": direction}]},
        "search": _search(),
    }
    return schema


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


def _one_or_many(item: Json) -> Json:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}
