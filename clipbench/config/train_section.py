"""The `train` section: its options, which may be axes, and the Trainings that they make together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from clipbench.config import units
from clipbench.config.axes import Axis, read_axis
from clipbench.config.component_options import NotNegative
from clipbench.config.components import read_choices, read_component_axis
from clipbench.config.measure_names import check_measure
from clipbench.config.sections import Positive, Section, options_of, refuse_unknown, specs
from clipbench.config.values import InvalidValue, show, validate
from clipbench.config.yaml_nodes import Node
from clipbench.core.trial import Component, Training
from clipbench.errors import Findings, InputError, did_you_mean

AUTO = Component("auto", label="auto")  # a loss that the plan chooses by the targets
OUTPUT = Component("output", label="output")  # the model's output is the loss
OF_COMPONENTS = ("schedule", "noise")  # options that are a component, or null
# Options that take components of the kind of their name, and the names that stand for one or for none.
SPECIAL: Mapping[str, Mapping[str | None, Component | None]] = {
    "loss": {"auto": AUTO, "output": OUTPUT},
    **{name: {None: None} for name in OF_COMPONENTS},
}

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
    accumulate: PositiveInt = 1
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None
    precision: Literal["full", "bf16"] = "full"
    timeout_per_step: float = 600.0


def read_training(node: Node | None, folder: str) -> dict[str, Axis]:
    """Return the axes of `train`, by the fields of Training."""
    if node is None:
        return {}
    findings = Findings()
    given = {name: item for name, item in options_of(node).items() if not isinstance(item.value, InputError)}
    metrics = _metrics(given["metrics"], folder, findings) if "metrics" in given else ()
    known = specs(Train)
    known["target"] = replace(known["target"], reader=partial(_target, metrics=function_names(metrics)))
    known["early_stop"] = replace(known["early_stop"], reader=partial(_early_stop, metrics=function_names(metrics)))
    known["batch_size"] = replace(known["batch_size"], reader=_batch_size)
    known["timeout_per_step"] = replace(known["timeout_per_step"], reader=units.duration, aside=True)
    refuse_unknown(node, [*known, "loss", "metrics", *OF_COMPONENTS], findings)
    if "epochs" in node.value and "steps" in node.value:
        text = "epochs and steps cannot both be set."
        findings.add(node.value["steps"].key_place, text, "Keep one of them.")
    axes = {
        name: findings.attempt(partial(read_axis, item, known[name])) for name, item in given.items() if name in known
    }
    for name, special in SPECIAL.items():
        if name in given:
            axes[name] = findings.attempt(partial(read_component_axis, given[name], name, folder, special))
    findings.raise_if_any()
    found = {name: axis for name, axis in axes.items() if axis}
    return found | ({"metrics": Axis((metrics,))} if "metrics" in given else {})


def trainings(axes: Mapping[str, Axis]) -> Iterator[Training]:
    """Every combination of the values of `train`."""
    defaults: dict[str, Any] = {"loss": AUTO} | ({"epochs": None} if "steps" in axes else {})
    for values in itertools.product(*(axis.values for axis in axes.values())):
        yield Training(**(defaults | dict(zip(axes, values, strict=True))))


def function_names(metrics: Sequence[Component]) -> tuple[str, ...]:
    """The names of metrics in tables: those of their functions."""
    return tuple(metric.name.rpartition(":")[2] for metric in metrics)


def _metrics(node: Node, folder: str, findings: Findings) -> tuple[Component, ...]:
    """Return the metrics, without those that cannot be read."""
    if node.value == []:
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
    check_measure(measure, metrics, per_epoch=True)
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
    check_measure(measure, metrics, per_epoch=True)
    return Component.of(measure, **options)
