"""Load an experiment: read, validate and expand a YAML file, reporting mistakes with their places."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from clipbench.config import overrides
from clipbench.config.axes import Axis
from clipbench.config.claim_language import Vocabulary, option_values
from clipbench.config.components import Choice, read_choices
from clipbench.config.experiment import Experiment, locate
from clipbench.config.frozen_section import KEY as FROZEN
from clipbench.config.frozen_section import read_frozen
from clipbench.config.optimizer_check import check_optimizers
from clipbench.config.remarks import remark
from clipbench.config.script_section import REPLACED, SECTION, is_script, metric_directions, read_script
from clipbench.config.sections import (
    TUNED_TRAINING,
    ReportSection,
    read_claims,
    read_expectations,
    read_name,
    read_report,
    read_seeds,
)
from clipbench.config.sweep_section import read_sweep
from clipbench.config.train_section import function_names, read_training, trainings
from clipbench.config.values import show
from clipbench.config.yaml_file import read_text
from clipbench.config.yaml_nodes import Node, parse
from clipbench.core.trial import NOTHING, Component
from clipbench.errors import Findings, InputError, Place, did_you_mean
from clipbench.plugins import registry, user_modules
from clipbench.plugins.registry import UNCLIPPED

KINDS = {"data": "data", "model": "model", "optimizer": "optimizer", "clip": "strategy"}
KEYS = ("name", *KINDS, "train", "seeds", "report", "sweep", "claims", "folder", FROZEN)
MOST_TRIALS = 1_000_000


def load(path: str | Path, sets: Sequence[str] = (), seeds: int | None = None) -> Experiment:
    """The experiment of a YAML file with `--set` and `--seeds` applied; InputError holds every mistake."""
    reading = _read(Path(path), sets, seeds)
    experiment = reading.experiment()
    check_optimizers(experiment.choices.get("optimizer", ()), reading.sections.get("optimizer"), reading.findings)
    reading.findings.raise_if_any()
    return experiment


def load_without_imports(path: str | Path, sets: Sequence[str] = (), seeds: int | None = None) -> Experiment:
    """The experiment as far as it can be known without importing what it names; nothing of the user's is run."""
    with user_modules.imports(user_modules.Imports.LEFT_OUT):
        reading = _read(Path(path), sets, seeds)
        experiment = reading.experiment()
    reading.findings.raise_if_any()
    return experiment


def check_early(path: str | Path, sets: Sequence[str] = (), seeds: int | None = None) -> bool:
    """Raise InputError for what can be said without torch. Return False if the file may name functions of the user."""
    with suppress(user_modules.NotImported), user_modules.imports(user_modules.Imports.REFUSED):
        if registry.needs_no_torch():
            return bool(_read(Path(path), sets, seeds).experiment())
    return False


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
        self.findings = findings
        self.root = root
        self.sections = self._sections()
        self.places = {node.key: node.place for node in root.walk()}
        self.folder = self._folder()

    def experiment(self) -> Experiment:
        sections, findings = self.sections, self.findings
        script = is_script(sections.get(SECTION))
        choices = {section: self._choices(section) for section in KINDS if not (script and section in REPLACED)}
        if script:
            choices[SECTION] = read_script(sections, self.folder, findings)
            axes: dict[str, Axis] | None = {}
            metrics = tuple(metric_directions(choices[SECTION]))
        else:
            axes = findings.attempt(lambda: read_training(sections.get("train"), self.folder))
            metrics = function_names(axes["metrics"].values[0]) if axes and "metrics" in axes else ()
        report = read_report(sections.get("report"), metrics, findings)
        sweep = read_sweep(sections.get("sweep"), metrics, choices, axes, findings)
        claims, frozen = (
            read_claims(sections.get("claims"), metrics, findings),
            read_frozen(sections.get(FROZEN), findings),
        )
        name, seeds = self.name(), read_seeds(sections.get("seeds"), findings)
        if not script:
            self._check_data(choices["data"], axes)
        self._check_size(choices, axes, seeds)
        findings.raise_if_any()
        assert axes is not None and report is not None and seeds is not None  # or there was a problem
        parts = {section: self._expand(section, found) for section, found in choices.items()}
        report = self._with_baseline(report, parts["clip"])
        if report.tuned and not (sweep and sweep.searches_optimizers):
            self._check_tuned(parts[SECTION if script else "optimizer"], axes)
        training = tuple(trainings(axes))
        others = {section: found for section, found in parts.items() if section != "clip"}
        vocabulary = Vocabulary.of(parts["clip"], others, option_values(parts, training))
        expectations = read_expectations(sections.get("claims"), vocabulary, findings)
        remark(choices, "schedule" in axes, findings)
        findings.raise_if_any()
        return Experiment(
            name=name,
            path=str(self.path),
            text=self.text,
            data=parts.get("data") or (None,),
            models=parts.get("model", (NOTHING,)),
            optimizers=parts.get("optimizer", (NOTHING,)),
            training=training,
            scripts=parts.get(SECTION, (None,)),
            arms=parts["clip"],
            seeds=tuple(seeds),
            report=report,
            notes=tuple(findings.notes),
            sweep=sweep,
            claims=claims,
            expectations=expectations,
            keys={section: _keys(found) for section, found in choices.items()},
            choices={section: tuple(found) for section, found in choices.items()},
            train_axes=axes,
            places=self.places,
            folder=self.folder,
            frozen=frozen,
        )

    def name(self) -> str:
        return self.findings.attempt(lambda: read_name(self.sections.get("name"), self.path)) or ""

    def _sections(self) -> dict[str, Node]:
        root, example = self.root, "`clipbench init` writes an example."
        if root.value is None:
            raise root.error("the file is empty.", example)
        if not isinstance(root.value, dict):
            self.findings.add(root.place, f"expected a mapping of sections, got {show(root.plain())}.", example)
            raise InputError(self.findings.problems)
        for key, node in root.value.items():
            if key == "include":
                self.findings.add(node.key_place, "`include` is not supported.", "Write the experiment in one file.")
            elif key not in KEYS:
                self.findings.add(node.key_place, f"unknown section {key!r}.", did_you_mean(key, KEYS))
        return dict(root.value)

    def _folder(self) -> str:
        """Where `./file.py:function` is looked up: beside the YAML, or in the `folder` that it names."""
        beside = self.path.absolute().parent
        node = self.sections.get("folder")
        if node and isinstance(node.value, str) and os.path.isdir(beside / node.value):
            return str(beside / node.value)
        if node and not isinstance(node.value, InputError):
            self.findings.add(node.place, f"there is no folder {show(node.plain())}.")
        return str(beside)

    def _choices(self, section: str) -> list[Choice]:
        node = self.sections.get(section)
        if section == "data" and (node is None or _is_none(node)):
            return []
        if node is None:
            remedy = "`clipbench list` shows the available names."
            self.findings.add(self.root.place, f"missing section `{section}`.", remedy)
            return []
        return read_choices(node, KINDS[section], self.folder, self.findings)

    def _check_data(self, data: Sequence[Choice], axes: Mapping[str, Axis] | None) -> None:
        """Check that training has data, and that their options fit together and to those of training."""
        section = self.sections.get("data")
        losses = [loss.name for loss in axes["loss"].values] if axes and "loss" in axes else ["auto"]
        unread = axes is None or not (section is None or _is_none(section))  # reported already
        if not data and not unread and losses != ["output"]:
            remedy = "Name a data set, or write train: {loss: output} if the model's output is the loss."
            self.findings.add(self._place("data"), "there are no data to train on.", remedy)
        # A stream draws as many examples as it is asked for.
        fixed = [choice for choice in data if not choice.plugin.is_stream]
        for choice in fixed:
            self._check_split(choice)
        known = [choice for choice in fixed if not choice.plugin.source]  # one's own may return endless data
        if known and axes and axes.get("epoch_steps", Axis((None,))).values != (None,):
            text = f"epoch_steps is only supported for streams, and {known[0].name} is not one."
            self.findings.add(self._place("train.epoch_steps"), text, "Remove it.")

    def _check_split(self, data: Choice) -> None:
        """Check that folds exist, and that the shares of val and test leave something to train on."""
        folds, fold = (data.values(name) or (None,) for name in ("folds", "fold"))
        wrong = [number for number in fold if number is not None and (folds[0] is None or number >= folds[0])]
        held_out = max(data.values("split.val")) + (1 / folds[0] if folds[0] else max(data.values("split.test")))
        if len(folds) > 1:
            option, text, remedy = "folds", "folds must be a single number.", "Write for example folds: 5."
        elif wrong:
            text = f"fold must be at most {folds[0] - 1}, got {wrong[0]}." if folds[0] else "fold requires folds."
            option, remedy = "fold", "Write folds: 5 to train on every fold."
        elif held_out >= 1:
            option, remedy = "split", ""
            text = f"the shares of val and test must sum to less than 1, got {held_out:g}."
        else:
            return
        self.findings.add(self._place(f"{data.key}.{option}"), text, remedy)

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

    def _check_tuned(self, optimizers: Sequence[Component], axes: Mapping[str, Axis]) -> None:
        """`tuned: true` needs an axis to choose from."""
        names = [component.name for component in optimizers]
        varies = any(len(axis.values) > 1 for name, axis in axes.items() if name in TUNED_TRAINING)
        if not varies and len(set(names)) == len(names):
            text = "there is nothing to tune: no option of an optimizer has several values."
            remedy = "Write optimizer.lr: [0.01, 0.1, 1.0], or remove `tuned`."
            self.findings.add(self._place("report.tuned"), text, remedy)

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

    def _place(self, key: str) -> Place:
        return locate(self.places, key, str(self.path))


def _is_none(node: Node) -> bool:
    name = node.value.get("name") if isinstance(node.value, dict) and len(node.value) == 1 else node
    return name is not None and name.value in (None, "none")


def _keys(choices: Sequence[Choice]) -> tuple[str, ...]:
    return tuple(choice.key for choice in choices for _ in range(choice.size))
