"""Experiment: one YAML file, validated; the noun that planning, sweeping and reporting start from."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from clipbench.config.axes import Axis, Range
from clipbench.config.claim_language import Expectation
from clipbench.config.components import Choice
from clipbench.config.frozen_section import Frozen
from clipbench.config.sections import Claim, ReportSection
from clipbench.config.sweep_section import Sweep
from clipbench.config.yaml_file import read_text
from clipbench.config.yaml_nodes import parse
from clipbench.core.trial import Component, Training
from clipbench.errors import Findings, Place


@dataclass(frozen=True)
class Experiment:
    """One YAML file, validated; every list and range expanded, in the order of the file."""

    name: str
    path: str
    text: str
    data: tuple[Component | None, ...]  # None: an objective or a script needs none
    models: tuple[Component, ...]
    optimizers: tuple[Component, ...]
    training: tuple[Training, ...]
    arms: tuple[Component, ...]
    seeds: tuple[int, ...]
    report: ReportSection
    scripts: tuple[Component | None, ...] = (None,)  # what trains in place of data, models and optimizers
    notes: tuple[str, ...] = ()
    sweep: Sweep | None = None
    claims: tuple[Claim, ...] = ()
    expectations: tuple[Expectation, ...] = ()  # of the claims, one each
    # Of each component above its key in the YAML: keys["clip"][3] == "clip[1]" made arms[3].
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # Before expansion, by section, and the axes of `train`.
    choices: Mapping[str, tuple[Choice, ...]] = field(default_factory=dict)
    train_axes: Mapping[str, Axis] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    folder: str = ""  # where `./file.py:function` is looked up
    frozen: Frozen | None = None  # what trained it, in the file of a results folder

    @property
    def accuracy_margin(self) -> float | None:
        """The smallest margin of the report and of its claims about the accuracy."""
        asked = [(self.report.metric, self.report.margin)]
        asked += [(claim.metric or self.report.metric, claim.margin) for claim in self.claims]
        return min(
            (margin for metric, margin in asked if margin and (metric or "accuracy").endswith("accuracy")), default=None
        )

    @property
    def is_script(self) -> bool:
        """Whether a training script of the user's own makes data, model and optimizer."""
        return self.scripts != (None,)

    @property
    def size(self) -> int:
        """The number of trials."""
        parts = (self.data, self.models, self.optimizers, self.training, self.scripts, self.arms, self.seeds)
        return math.prod(len(part) for part in parts)

    @property
    def ranges(self) -> dict[str, Range]:
        """Every range of the file, by the key path of its option: `clip[1].threshold`."""
        found = {f"train.{name}": axis for name, axis in self.train_axes.items()}
        for choice in itertools.chain(*self.choices.values()):
            found |= {f"{choice.key}.{name}": axis for name, axis in choice.axes}
        return {key: axis.ranges[0] for key, axis in found.items() if len(axis.ranges) == 1}

    def place(self, key: str) -> Place:
        """Where a key path stands in the file; of what is not written there, the nearest part around it."""
        return locate(self.places, key, self.path)


def locate(places: Mapping[str, Place], key: str, file: str) -> Place:
    around = key
    while around and around not in places:
        around = re.sub(r"(\.[^.\[]*|\[\d+\]|^[^.\[]+)$", "", around)
    return replace(places.get(around, Place(file)), key=key)


def place_of_module(path: str | Path, module: str) -> Place:
    """Return where a file names a module of the user, given by its name or its file."""
    name = Path(module).name
    nodes = parse(read_text(Path(path)), str(path), Findings()).walk()
    texts = ((node, node.value.partition(":")[0]) for node in nodes if isinstance(node.value, str))
    return next((node.place for node, text in texts if text and name in (text, Path(text).name)), Place(str(path)))
