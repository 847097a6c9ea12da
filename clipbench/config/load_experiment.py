"""Load an experiment: read, validate and expand a YAML file, reporting mistakes with their places."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipbench.config import overrides
from clipbench.config.arm_options import FOLLOWING
from clipbench.config.axes import Axis
from clipbench.config.claim_language import Vocabulary, option_values
from clipbench.config.components import Choice, read_choices
from clipbench.config.experiment import Experiment, locate
from clipbench.config.experiment_name import read_name
from clipbench.config.optimizer_check import check_optimizers
from clipbench.config.partition_check import check_partition
from clipbench.config.sections import ReportSection, read_claims, read_expectations, read_report
from clipbench.config.sweep_section import read_sweep
from clipbench.config.train_section import function_names, read_training, trainings
from clipbench.config.tunable import check_tuned
from clipbench.config.values import show
from clipbench.config.yaml_file import read_text
from clipbench.config.yaml_nodes import INVALID, Node, parse
from clipbench.core.trial import Component
from clipbench.errors import Findings, Place, did_you_mean
from clipbench.plugins.registry import UNCLIPPED, find

KINDS = {"data": "data", "model": "model", "optimizer": "optimizer", "clip": "strategy"}
KEYS = ("name", *KINDS, "train", "seeds", "report", "sweep", "claims", "folder")
MOST_TRIALS = 1_000_000
DEFAULT_SEEDS = 8
SEEDS = 2**32  # beyond, two seeds may be the same run


def load(path: str | Path, sets: Sequence[str] = (), seeds: int | None = None) -> Experiment:
    """The experiment of a YAML file with `--set` and `--seeds` applied; InputError holds every mistake."""
    return _read(Path(path), sets, seeds).experiment()


def name_of(path: str | Path, sets: Sequence[str] = ()) -> str:
    """An experiment's name alone: no plug-in is looked up, and so no library imported."""
    reading = _read(Path(path), sets)
    name = reading.name()
    reading.findings.raise_if_any()
    return name


def _read(path: Path, sets: Sequence[str], seeds: int | None = None) -> _Reading:
    findings = Findings()
    text = read_text(path)
    root = overrides.apply(parse(text, str(path), findings), sets, findings)
    if seeds is not None:
        root = overrides.put_seeds(root, seeds)
    return _Reading(path, text, root, findings)


class _Reading:
    """One file on its way to an Experiment."""

    def __init__(self, path: Path, text: str, root: Node, findings: Findings) -> None:
        self.path = path
        self.text = text
        self.root = root
        self.findings = findings
        self.sections = self._sections()
        self.places = {node.key: node.place for node in root.walk()}
        self.folder = self._folder()

    def experiment(self) -> Experiment:
        choices = {section: self._choices(section) for section in KINDS}
        check_optimizers(choices["optimizer"], self.sections.get("optimizer"), self.findings)
        axes = read_training(self.sections.get("train"), self.folder, self.findings)
        metrics = function_names(axes["metrics"].values[0]) if axes and "metrics" in axes else ()
        report = read_report(self.sections.get("report"), metrics, self.findings)
        sweep = read_sweep(self.sections.get("sweep"), metrics, choices, axes, self.findings)
        claims = read_claims(self.sections.get("claims"), metrics, self.findings)
        name, seeds = self.name(), self._seeds()
        self._check_together(choices, axes, seeds)
        self.findings.raise_if_any()
        assert axes is not None and report is not None and seeds is not None  # or there was a problem
        parts = {section: self._expand(section, found) for section, found in choices.items()}
        report = self._with_baseline(report, parts["clip"])
        if report.tuned and not (sweep and sweep.searches_optimizers):
            check_tuned(parts["optimizer"], axes, self._place("report.tuned"), self.findings)
        parts_by_kind = {"data": parts["data"], "model": parts["model"], "optimizer": parts["optimizer"]}
        training = tuple(trainings(axes))
        vocabulary = Vocabulary.of(parts["clip"], parts_by_kind, option_values(parts, training))
        expectations = read_expectations(self.sections.get("claims"), vocabulary, self.findings)
        self._remark(choices, "schedule" in axes)
        self.findings.raise_if_any()
        return Experiment(
            name=name,
            path=str(self.path),
            text=self.text,
            data=parts["data"] or (None,),
            models=parts["model"],
            optimizers=parts["optimizer"],
            training=training,
            arms=parts["clip"],
            seeds=tuple(seeds),
            report=report,
            notes=tuple(self.findings.notes),
            sweep=sweep,
            claims=claims,
            expectations=expectations,
            keys={section: _keys(found) for section, found in choices.items()},
            choices={section: tuple(found) for section, found in choices.items()},
            train_axes=axes,
            places=self.places,
            folder=self.folder,
        )

    def _check_together(
        self,
        choices: Mapping[str, Sequence[Choice]],
        axes: Mapping[str, Axis] | None,
        seeds: Sequence[int] | None,
    ) -> None:
        """Check sections against each other."""
        self._check_loss_and_data(choices["data"], axes)
        self._check_splits(choices["data"])
        self._check_epoch_steps(choices["data"], axes)
        self._check_size(choices, axes, seeds)

    def _sections(self) -> dict[str, Node]:
        root = self.root
        if root.value is None:
            self.findings.add(root.place, "the file is empty.", "`clipbench init` writes an example.")
        elif not isinstance(root.value, dict):
            text = f"expected a mapping of sections, got {show(root.plain())}."
            self.findings.add(root.place, text, "`clipbench init` writes an example.")
        else:
            for key, node in root.value.items():
                if key == "include":
                    self.findings.add(
                        node.key_place, "`include` is not supported.", "Write the experiment in one file."
                    )
                elif key not in KEYS:
                    self.findings.add(node.key_place, f"unknown section {key!r}.", did_you_mean(key, KEYS))
            return dict(root.value)
        self.findings.raise_if_any()
        return {}

    def _folder(self) -> str:
        """Where `./file.py:function` is looked up: beside the YAML, or in the `folder` that it names."""
        beside = self.path.absolute().parent
        node = self.sections.get("folder")
        if node is None or node.value is INVALID:
            return str(beside)
        if not isinstance(node.value, str) or not os.path.isdir(beside / node.value):
            self.findings.add(node.place, f"there is no folder {show(node.plain())}.")
            return str(beside)
        return str(beside / node.value)

    def _choices(self, section: str) -> list[Choice]:
        node = self.sections.get(section)
        if section == "data" and (node is None or _is_none(node)):
            return []
        if node is None:
            remedy = "`clipbench list` shows the available names."
            self.findings.add(self.root.place, f"missing section `{section}`.", remedy)
            return []
        return read_choices(node, KINDS[section], self.folder, self.findings)

    def name(self) -> str:
        return read_name(self.sections.get("name"), self.path, self.findings)

    def _seeds(self) -> Sequence[int] | None:
        node = self.sections.get("seeds")
        if node is None:
            return range(DEFAULT_SEEDS)
        seeds = node.plain()
        if seeds is INVALID:
            return None
        if _is_whole(seeds) and seeds >= 1:
            return range(seeds)
        if not isinstance(seeds, list) or not seeds or not all(_is_whole(seed) and seed >= 0 for seed in seeds):
            text = f"expected the number of seeds or a list of them, got {show(seeds)}."
            self.findings.add(node.place, text, "Write seeds: 8, or seeds: [0, 1, 2].")
            return None
        for position, seed in enumerate(seeds):
            if seed >= SEEDS:
                text = f"seeds must be less than 2**32, got {seed}."
                self.findings.add(node.value[position].place, text, "Choose a smaller seed.")
            if seed in seeds[:position]:
                self.findings.add(node.value[position].place, f"duplicate seed {seed}.", "Keep one of them.")
        return seeds

    def _check_loss_and_data(self, data: Sequence[Choice], axes: Mapping[str, Axis] | None) -> None:
        section = self.sections.get("data")
        if axes is None or (section is not None and not _is_none(section) and not data):
            return  # reported already
        losses = [loss.name for loss in axes["loss"].values] if "loss" in axes else ["auto"]
        if not data and losses and losses != ["output"]:
            remedy = "Name a data set, or write train: {loss: output} if the model's output is the loss."
            self.findings.add(self._place("data"), "there are no data to train on.", remedy)

    def _check_epoch_steps(self, data: Sequence[Choice], axes: Mapping[str, Axis] | None) -> None:
        fixed = [choice.name for choice in data if not find("data", choice.name, choice.folder).is_stream]
        if fixed and axes and axes.get("epoch_steps", Axis((None,))).values != (None,):
            text = f"epoch_steps is only supported for streams, and {fixed[0]} is not one."
            self.findings.add(self._place("train.epoch_steps"), text, "Remove it.")

    def _check_splits(self, data: Sequence[Choice]) -> None:
        for choice in data:
            if not find("data", choice.name, choice.folder).is_stream:  # which draws as many as it is asked for
                check_partition(choice, self._place, self.findings)

    def _check_size(
        self,
        choices: Mapping[str, Sequence[Choice]],
        axes: Mapping[str, Axis] | None,
        seeds: Sequence[int] | None,
    ) -> None:
        sizes = [sum(choice.size for choice in found) or 1 for found in choices.values()]
        sizes += [len(axis.values) for axis in (axes or {}).values()]
        size = math.prod(sizes) * len(seeds or (0,))
        if size > MOST_TRIALS:
            text = f"the experiment has {size:,} trials, more than {MOST_TRIALS:,}."
            self.findings.add(Place(str(self.path)), text, "Use fewer seeds, points or options.")

    def _expand(self, section: str, choices: Sequence[Choice]) -> tuple[Component, ...]:
        first: dict[Component, str] = {}
        for choice in choices:
            for component in choice.components():
                if component in first:
                    earlier = self._place(first[component])
                    where = f" at line {earlier.line}" if earlier.line else ""
                    text = f"duplicate {component.arm}, first{where} ({first[component]})."
                    self.findings.add(self._place(choice.key), text, "Keep one of them.")
                first.setdefault(component, choice.key)
        return tuple(first)

    def _with_baseline(self, options: ReportSection, arms: Sequence[Component]) -> ReportSection:
        names = list(dict.fromkeys(itertools.chain.from_iterable((arm.name, arm.label, arm.arm) for arm in arms)))
        if options.baseline is None:
            if UNCLIPPED in names:
                return options.model_copy(update={"baseline": UNCLIPPED})
            self.findings.note(
                f"There is no arm `{UNCLIPPED}` and no report.baseline: arms are not compared with a baseline."
            )
            return options
        if options.baseline not in names:
            text = f"unknown arm {options.baseline!r}."
            self.findings.add(self._place("report.baseline"), text, did_you_mean(options.baseline, names))
        return options

    def _remark(self, choices: Mapping[str, Sequence[Choice]], rates_move: bool) -> None:
        for choice in choices["clip"]:
            schedules = dict(choice.axes).get("schedule", Axis(())).values
            for name in [one.name for one in schedules if one and one.name in FOLLOWING and not rates_move]:
                text = "the learning rate has no schedule, so the threshold stays constant."
                self.findings.note(f"{choice.key}.schedule: {name}: {text}")
            # What follows the norms that were has no such 0: the 0th percentile is the smallest of them.
            facts = find("strategy", choice.name, choice.folder).facts
            if not facts.get("init") and 0.0 in dict(choice.axes).get("threshold", Axis(())).values:
                what = facts.get("at_zero", "all gradients become zero")
                self.findings.note(f"{choice.key}.threshold: threshold 0: {what}.")
        for choice in choices["optimizer"]:
            if 0.0 in dict(choice.axes).get("lr", Axis(())).values:
                self.findings.note(f"{choice.key}.lr: learning rate 0: the weights do not change.")

    def _place(self, key: str) -> Place:
        return locate(self.places, key, str(self.path))


def _is_none(node: Node) -> bool:
    name = node.value.get("name") if isinstance(node.value, dict) and len(node.value) == 1 else node
    return name is not None and name.value in (None, "none")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _keys(choices: Sequence[Choice]) -> tuple[str, ...]:
    return tuple(choice.key for choice in choices for _ in range(choice.size))
