"""The `train` section: its options, which may be axes, and the Trainings that they make together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from clipbench.config.axes import Axis, read_axis
from clipbench.config.components import read_choices
from clipbench.config.measure_names import unknown_measure
from clipbench.config.options import NotNegative
from clipbench.config.sections import Positive, Section, is_mapping, refuse_unknown, specs
from clipbench.config.values import InvalidValue, show, validate
from clipbench.config.yaml_nodes import INVALID, Node
from clipbench.core.trial import Component, Training
from clipbench.errors import Findings, did_you_mean

AUTO = Component("auto", label="auto")  # a loss that the plan chooses by the targets
OUTPUT = Component("output", label="output")  # the model's output is the loss
OF_COMPONENTS = ("schedule", "noise")  # options that are a component, or null

BatchSize = PositiveInt | Literal["full"]


class EarlyStop(Section):
    """Stop a trial when a measure has not improved in `patience` evaluations."""

    measure: str = "val/loss"
    patience: PositiveInt
    min_delta: NotNegative = 0.0


class Train(Section):
    """How long and in which batches every trial is trained: either `epochs` or `steps`."""

    epochs: PositiveInt = 20
    steps: PositiveInt = 0  # 0: not said, `epochs` counts
    batch_size: BatchSize = 64
    drop_last: bool = False
    epoch_steps: PositiveInt | None = None
    dtype: Literal["float32", "float64"] = "float32"
    l1: NotNegative = 0.0
    l2: NotNegative = 0.0
    evaluate_every: PositiveInt = 1
    early_stop: PositiveInt | EarlyStop | None = None
    target: Annotated[dict[str, float], Field(min_length=1, max_length=1)] | None = None
    diverge_above: Positive | None = None
    save_weights: bool = False


def read_training(node: Node | None, folder: str, findings: Findings) -> dict[str, Axis] | None:
    """The axes of `train`, by the fields of Training; None if any was reported as wrong."""
    if node is None:
        return {}
    if not is_mapping(node, findings):
        return None
    before = len(findings.problems)
    given: dict[str, Node] = node.value
    metrics = _metrics(given.get("metrics"), folder, findings)
    known = specs(Train)
    known["target"] = replace(known["target"], validate=partial(_target, metrics=function_names(metrics)))
    known["early_stop"] = replace(known["early_stop"], validate=partial(_early_stop, metrics=function_names(metrics)))
    known["batch_size"] = replace(known["batch_size"], validate=_batch_size)
    refuse_unknown(node, [*known, "loss", "metrics", *OF_COMPONENTS], findings)
    _refuse_both(given, findings)
    axes = {name: read_axis(item, known[name], findings) for name, item in given.items() if name in known}
    if "loss" in given:
        axes["loss"] = Axis(_losses(given["loss"], folder, findings))
    for name in OF_COMPONENTS:
        if name in given:
            axes[name] = Axis(_components(given[name], name, folder, findings))
    if "metrics" in given:
        axes["metrics"] = Axis((metrics,))
    return {name: axis for name, axis in axes.items() if axis} if len(findings.problems) == before else None


def trainings(axes: Mapping[str, Axis]) -> Iterator[Training]:
    """Every combination of the values of `train`."""
    defaults: dict[str, Any] = {"loss": AUTO} | ({"epochs": None} if "steps" in axes else {})
    for values in itertools.product(*(axis.values for axis in axes.values())):
        yield Training(**(defaults | dict(zip(axes, values, strict=True))))


def function_names(metrics: Sequence[Component]) -> tuple[str, ...]:
    """The names of metrics in tables: those of their functions."""
    return tuple(metric.name.rpartition(":")[2] for metric in metrics)


def _refuse_both(given: Mapping[str, Node], findings: Findings) -> None:
    if "epochs" in given and "steps" in given:
        text = "epochs and steps cannot both be set."
        findings.add(given["steps"].key_place, text, "Keep one of them.")


def _components(node: Node, kind: str, folder: str, findings: Findings) -> tuple[Component | None, ...]:
    """The values of an option that takes components; `null` turns it off."""
    found: list[Component | None] = []
    for entry in node.value if isinstance(node.value, list) else [node]:
        if entry.value is None:
            found.append(None)
        else:
            choices = read_choices(entry, kind, folder, findings)
            found += [component for choice in choices for component in choice.components()]
    if len(set(found)) < len(found):
        findings.add(node.place, f"duplicate {kind}.", "Keep one of them.")
    return tuple(found)


def _losses(node: Node, folder: str, findings: Findings) -> tuple[Component, ...]:
    special = {component.name: component for component in (AUTO, OUTPUT)}
    found: list[Component] = []
    if node.value == []:
        findings.add(node.place, "the list is empty.", "Name at least one loss.")
    for entry in node.value if isinstance(node.value, list) else [node]:
        name = entry.value.get("name", entry) if isinstance(entry.value, dict) else entry
        if (
            isinstance(name.value, str)
            and name.value in special
            and entry.plain() in (name.value, {"name": name.value})
        ):
            found.append(special[name.value])
        else:
            choices = read_choices(entry, "loss", folder, findings)
            found += [component for choice in choices for component in choice.components()]
    if len(set(found)) < len(found):
        findings.add(node.place, "duplicate loss.", "Keep one of them.")
    return tuple(found)


def _metrics(node: Node | None, folder: str, findings: Findings) -> tuple[Component, ...]:
    if node is None or node.value is INVALID or node.value == []:
        return ()
    if not isinstance(node.value, list):
        text = f"expected a list of metrics, got {show(node.plain())}."
        findings.add(node.place, text, "Write metrics: [accuracy].")
        return ()
    choices = read_choices(node, "metric", folder, findings)
    found = tuple(component for choice in choices for component in choice.components())
    if len(set(function_names(found))) < len(found):
        findings.add(node.place, "duplicate metric.", "Keep one of them.")
    return found


def _batch_size(value: Any) -> int | None:
    validated = validate(value, BatchSize)
    return None if validated == "full" else int(validated)


def _target(value: Any, metrics: tuple[str, ...]) -> tuple[str, float] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) != 1:
        raise InvalidValue(f"expected one measure and its value, got {show(value)}.", "Write {val/accuracy: 0.95}.")
    [(measure, reached)] = value.items()
    problem, remedy = unknown_measure(measure, metrics, per_epoch=True)
    if problem:
        raise InvalidValue(problem, remedy)
    return str(measure), float(validate(reached, float))


def _early_stop(value: Any, metrics: tuple[str, ...]) -> Component | None:
    if value is None:
        return None
    given = value if isinstance(value, dict) else {"patience": value}
    known = specs(EarlyStop)
    for name in given:
        if name not in known:
            raise InvalidValue(f"early_stop has no option {name!r}.", did_you_mean(name, known))
    if "patience" not in given:
        raise InvalidValue("early_stop needs `patience`.", "Write {measure: val/loss, patience: 5}.")
    options = {name: spec.validate(given[name]) if name in given else spec.default for name, spec in known.items()}
    measure = options.pop("measure")
    problem, remedy = unknown_measure(measure, metrics, per_epoch=True)
    if problem:
        raise InvalidValue(problem, remedy)
    return Component.of(measure, **options)
