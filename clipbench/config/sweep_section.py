"""The `sweep` section: how thresholds and other options are searched."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, WithJsonSchema

from clipbench.config import units
from clipbench.config.axes import Axis
from clipbench.config.components import Choice
from clipbench.config.measure_names import check_measure, is_measure
from clipbench.config.script_section import SECTION
from clipbench.config.search_space import read_search
from clipbench.config.sections import Section, read_values, specs
from clipbench.config.values import InvalidValue, show, validate
from clipbench.config.yaml_nodes import Node
from clipbench.core import measures
from clipbench.errors import Findings

Direction = Literal["maximize", "minimize"]
Directions = Annotated[tuple[Direction, ...], Field(min_length=1)]
Objectives = Annotated[tuple[str, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
Seconds = Annotated[float, WithJsonSchema({"type": ["number", "string"]})]  # the YAML may say 10m

# Pruners that stop a point by what its epochs have come to so far.
OF_EPOCHS = ("median", "hyperband")
FEWEST_PAIRS = 5  # four are the fewest that a signed-rank test can stop a point by, and one more that it spares


class Sweep(Section):
    """How the best threshold of each arm is searched."""

    trials: PositiveInt = 40  # points of each strategy
    seeds: PositiveInt = 3
    batch: PositiveInt = 8
    sampler: Literal["tpe", "gp", "random", "qmc", "cmaes"] = "tpe"
    pruner: Literal["median", "hyperband", "wilcoxon", "none"] | None = None  # None: `median` where it can judge
    objective: str | Objectives | None = None  # None: the validation metric
    direction: Direction | Directions | None = None  # None: that of the measures
    confirm_seeds: PositiveInt = 8
    timeout: Seconds | None = None
    search: dict[str, Any] = Field({})  # a Range or a tuple of values, by the path of an option

    @property
    def searches_optimizers(self) -> bool:
        """Whether each arm may get its own learning rate or other options of the optimizer or the script."""
        return any(path.startswith(("optimizer", "train")) for path in self.search)


def read_sweep(
    node: Node | None,
    metrics: tuple[str, ...],
    choices: Mapping[str, Sequence[Choice]],
    axes: Mapping[str, Axis] | None,
    findings: Findings,
) -> Sweep | None:
    """The sweep section beside the components and the axes of `train` that were read; None if there is none."""
    if node is None:
        return None
    own = Findings()
    known = specs(Sweep)
    known["timeout"] = replace(known["timeout"], reader=units.seconds)
    known["direction"] = replace(known["direction"], reader=_directions)
    for name in ("objective", "search"):  # read below, each measure and each path at its place
        known[name] = replace(known[name], reader=lambda value: value)
    values = own.attempt(lambda: read_values(node, known, own)) or {}
    given: dict[str, Node] = node.value if isinstance(node.value, dict) else {}
    if "search" in given:
        values["search"] = read_search(given["search"], choices, findings, own)
    objectives = _objectives(given.get("objective"), metrics, own)
    findings.problems += own.problems
    if own.problems:
        return None
    sweep = Sweep(**(values | {"objective": _one_or_several(objectives)}))
    _check_judging(sweep, given, metrics, findings)
    _check_measured(objectives, given.get("objective"), choices, axes, findings)
    _remark(sweep, choices.get("data", ()), findings)
    return sweep


def _objectives(node: Node | None, metrics: tuple[str, ...], findings: Findings) -> tuple[str, ...]:
    """Return the measures that points are judged by; none where the YAML names none."""
    found: list[str] = []
    for item in _items(node):
        name = findings.attempt(partial(item.read, partial(_objective, metrics=metrics)))
        if name in found:
            findings.add(item.place, f"duplicate {name}.", "Keep one of them.")
        found += [name] if name else []
    if node and node.value == []:
        findings.add(node.place, "the list is empty.", "Write objective: val/accuracy.")
    return tuple(found)


def _items(node: Node | None) -> list[Node]:
    return [] if node is None or node.value is None else node.items


def _objective(name: Any, metrics: tuple[str, ...]) -> str:
    if not isinstance(name, str):
        raise InvalidValue(f"expected the name of a measure, got {show(name)}.", "Write for example val/accuracy.")
    check_measure(name, metrics)
    column = measures.final(name)
    if column and column.uses_test_data:
        remedy = f"Write {name.replace('test/', 'val/')}." if name.startswith("test/") else "Write val/loss."
        raise InvalidValue(f"{name} uses test data, which must not guide a search.", remedy)
    return name


def _check_judging(sweep: Sweep, given: Mapping[str, Node], metrics: tuple[str, ...], findings: Findings) -> None:
    """Check that directions and pruner fit the objectives."""
    objectives, directions = listed(sweep.objective), listed(sweep.direction)
    if directions and len(directions) != max(1, len(objectives)):
        text = f"there are {len(directions)} directions for {_count(max(1, len(objectives)), 'objective')}."
        if len(directions) == 1:
            text = f"there is one direction for {_count(len(objectives), 'objective')}."
        findings.add(given["direction"].place, text, "Write one for each, or leave it out.")
    if len(objectives) > 1 and sweep.pruner not in (None, "none"):
        text = f"{sweep.pruner} supports a single objective, got {len(objectives)}."
        findings.add(given["pruner"].place, text, "Write pruner: none, or leave it out.")
    elif sweep.pruner in OF_EPOCHS:
        for name in objectives:
            if not is_measure(name, metrics, per_epoch=True):
                text = f"{sweep.pruner} needs a measure of every epoch, but {name} is only known after training."
                findings.add(given["pruner"].place, text, "Write pruner: none, or leave it out.")


def _check_measured(
    objectives: tuple[str, ...],
    node: Node | None,
    choices: Mapping[str, Sequence[Choice]],
    axes: Mapping[str, Axis] | None,
    findings: Findings,
) -> None:
    """Check that the objectives are measured, as far as the YAML alone shows it."""
    targets = axes["target"].values if axes and "target" in axes else (None,)
    without_data = not (choices.get("data") or SECTION in choices or findings.has_problem_in("data"))
    for name, item in zip(objectives, _items(node), strict=True):
        if name == "epochs_to_target" and axes is not None and None in targets:
            text = "epochs_to_target requires train.target."
            findings.add(item.place, text, "Write train: {target: {val/accuracy: 0.95}}.")
        column = measures.final(name)
        if without_data and column and column.uses_validation_data:
            text = f"{name} requires data."
            findings.add(item.place, text, "Write train/loss, or leave it out.")


def _remark(sweep: Sweep, data: Sequence[Choice], findings: Findings) -> None:
    """Add notes about pruners that cannot prune."""
    folds = [len(choice.values("fold")) for choice in data if choice.values("fold")]
    pairs = sweep.seeds * (min(folds) if data and len(folds) == len(data) else 1)
    if sweep.pruner == "wilcoxon" and pairs < FEWEST_PAIRS:
        findings.note(
            f"sweep.pruner: wilcoxon cannot prune with {_count(pairs, 'pair')} of trials. "
            f"Write sweep.seeds: {FEWEST_PAIRS} or more."
        )
    if sweep.pruner in OF_EPOCHS and folds and min(folds) > 1:
        findings.note(
            f"sweep.pruner: {sweep.pruner} cannot prune with folds, because each fold is trained separately. "
            "Write sweep.pruner: wilcoxon."
        )


def listed(value: str | Collection[str] | None) -> tuple[str, ...]:
    """Return one or several names as a tuple."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _one_or_several(values: tuple[str, ...]) -> str | tuple[str, ...] | None:
    return None if not values else values[0] if len(values) == 1 else values


def _directions(value: Any) -> Any:
    if not isinstance(value, list):
        return validate(value, Direction | None)
    return _one_or_several(tuple(validate(item, Direction) for item in value))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
