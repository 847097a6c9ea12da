"""An experiment as YAML again, with every default filled in: what `results/<name>/experiment.yaml` holds."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from clipbench.config.axes import Axis, Range
from clipbench.config.components import Choice
from clipbench.config.experiment import Experiment
from clipbench.config.script_section import KIND, SECTION
from clipbench.config.sections import Section
from clipbench.config.yaml_scalars import add_core_schema
from clipbench.core.trial import Component, Training


class _Dumper(yaml.SafeDumper):
    """Writes what our loader reads back: text that would be a number there gets quotes here."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


add_core_schema(_Dumper)


def resolved(experiment: Experiment) -> str:
    """The YAML text that loads to the same trials."""
    document: dict[str, Any] = {"name": experiment.name}
    if any(component.folder for component in _components(experiment)):
        document["folder"] = experiment.folder
    for section, choices in experiment.choices.items():
        document[section] = _one_or_list([_choice(choice) for choice in choices]) if choices else "none"
        if section == SECTION:
            document[section] = _script(choices)
    if not experiment.is_script:
        document["train"] = _train(experiment.training[0], experiment.train_axes)
    seeds = list(experiment.seeds)
    document["seeds"] = len(seeds) if seeds == list(range(len(seeds))) else seeds
    document["report"] = _section(experiment.report)
    if experiment.sweep:
        document["sweep"] = _section(experiment.sweep)
    if experiment.claims:
        document["claims"] = [_section(claim) for claim in experiment.claims]
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    return f"# {experiment.name} as it was run, every default filled in.\n{text}"


def _components(experiment: Experiment) -> Iterator[Choice | Component]:
    """Everything that may be the user's own."""
    choices = list(itertools.chain(*experiment.choices.values()))
    yield from choices
    options = itertools.chain.from_iterable(choice.axes for choice in choices)
    axes = itertools.chain(experiment.train_axes.values(), (axis for _, axis in options))
    for value in itertools.chain(*(axis.values for axis in axes)):
        several = value if isinstance(value, tuple) else (value,)
        yield from (component for component in several if isinstance(component, Component))


def _choice(choice: Choice) -> dict[str, Any]:
    options: dict[str, Any] = {"name": choice.name}
    for name, axis in choice.axes:
        section, _, part = name.partition(".")
        if part:
            options.setdefault(section, {})[part] = _axis(axis)
        else:
            options[name] = _axis(axis)
    return options


def _script(choices: Sequence[Choice]) -> dict[str, Any]:
    """The `train` section that names scripts, which share their options."""
    options = _choice(choices[0]) | {"name": _one_or_list([choice.name for choice in choices])}
    if "metrics" in options:
        options["metrics"] = dict(choices[0].values("metrics")[0])
    if options.get("target"):
        options["target"] = dict([choices[0].values("target")[0]])
    return {KIND: options.pop("name")} | options


def _train(first: Training, axes: Mapping[str, Axis]) -> dict[str, Any]:
    options = {}
    for field in dataclasses.fields(Training):
        axis = axes.get(field.name) or Axis((getattr(first, field.name),))
        if axis.values != (None,) or field.name == "batch_size":
            options[field.name] = _one_or_list([_training_value(field.name, value) for value in axis.values])
    if options["loss"] == "auto":
        del options["loss"]
    options["metrics"] = [_component(metric) for metric in first.metrics]
    if not options["metrics"]:
        del options["metrics"]
    return options


def _training_value(name: str, value: Any) -> Any:
    if name == "batch_size" and value is None:
        return "full"
    if name == "target" and value is not None:
        return dict([value])
    if name == "early_stop" and value is not None:
        return {"measure": value.name, **value.as_dict()}
    return _component(value) if isinstance(value, Component) else value


def _component(component: Component) -> Any:
    if component.name == "shards":
        return {"shards": component["n"]}
    options = {name: _listed(value) for name, value in component.options}
    if not component.name:  # a group of parameters
        return options
    return {"name": component.name, **options} if options else component.name


def _axis(axis: Axis) -> Any:
    if len(axis.ranges) == 1 and len(axis.values) == len(axis.ranges[0].values()):
        return axis.ranges[0].as_dict()
    values = [_listed(value) for value in axis.values]
    alone = len(values) == 1 and (axis.takes_list or not isinstance(values[0], list))
    return values[0] if alone else values


def _section(section: Section) -> dict[str, Any]:
    found = {name: getattr(section, name) for name in type(section).model_fields}
    return {name: _plain(value) for name, value in found.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Range):  # of a search, which is not held to points
        return {name: ends for name, ends in value.as_dict().items() if name != "points"}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return _listed(value)


def _one_or_list(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _listed(value: Any) -> Any:
    if isinstance(value, Component):
        return _component(value)
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
