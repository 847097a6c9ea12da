"""Prepare an experiment: load data, build models, try one step of each, and report what is wrong, with its place."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch

from clipbench import config
from clipbench import datasets as dataset
from clipbench.config import Experiment
from clipbench.core.trial import Component, Training, Trial, digest
from clipbench.datasets import DataProblem, Dataset
from clipbench.engine.gradients.microbatches import BATCH, Scope
from clipbench.engine.inputs.batches import TrainingLength
from clipbench.engine.inputs.gradient_noise import try_noise
from clipbench.engine.model.examination import Examination, examine
from clipbench.engine.model.network import DTYPES, Batch, Network, build_model, is_own, weights_on_meta
from clipbench.engine.schedule_factor import try_schedule
from clipbench.errors import Findings, InputError, Problem, UnknownName, Unsupported, described, gather
from clipbench.planning import arm_checks, group_checks, rehearsal
from clipbench.planning.activations import activations
from clipbench.planning.constant_predictor import constants_of
from clipbench.planning.needed_memory import refuse_large_model
from clipbench.planning.plan import Cohort, Plan
from clipbench.planning.script_plan import script_plan
from clipbench.planning.source_files import sources
from clipbench.planning.training_defaults import with_defaults
from clipbench.plugins import registry

T = TypeVar("T")
SHARED = ("data", "model", "train")  # sections that are the same for all trials of a cohort


@dataclass(frozen=True)
class _Setting:
    """A combination of data set, model and training that was tried once."""

    data: Component | None
    model: Component
    train: Training
    dataset: Dataset | None
    keys: Mapping[str, str]  # of data and model, in the YAML
    schedule: TrainingLength
    examination: Examination
    activations: int  # elements that one lane's forward pass keeps for its backward pass

    def built(self) -> Network:
        """Return the model anew."""
        return _built(self.model, self.train, self.dataset)


def prepare(path: str, sets: Sequence[str] = (), seeds: int | None = None) -> Plan:
    """Load an experiment and plan it; raises InputError with every mistake that the data and models show."""
    began = time.time_ns()
    experiment = config.load(path, sets, seeds)
    plan = script_plan(experiment) if experiment.is_script else _Preparation(experiment).plan()
    return replace(plan, sources=sources(plan.experiment, began))


class _Preparation:
    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.findings = Findings(notes=list(experiment.notes))

    def plan(self) -> Plan:
        settings = [setting for setting in self._settings() if setting]
        self._check_arms(settings)
        if not self.findings.problems:
            for setting in settings:
                self.findings.attempt(partial(self._rehearse, setting))
        self.findings.raise_if_any()
        cohorts = tuple(cohort for setting in settings for cohort in self._cohorts(setting))
        for setting in settings:
            if reason := setting.examination.loop_reason:
                self.findings.note(f"{setting.model.name} is trained one model after another: {reason}.")
            if setting.examination.sparse:
                self.findings.note(f"{setting.model.name}: its sparse gradients are made dense.")
        for name in _undeclared(settings):
            text = f"a higher {name} is taken for better. Declare it with @metric(higher_is_better=...)."
            self.findings.note(text)
        return Plan(
            experiment=self.experiment,
            cohorts=cohorts,
            notes=tuple(self.findings.notes),
            higher=_directions(settings),
            norm_rules=arm_checks.norm_rules(cohorts),
            examples={data.fingerprint: data.examples for data in (setting.dataset for setting in settings) if data},
            constants=constants_of((each.built(), each.dataset) for each in settings),
            validates=all(setting.dataset is not None and setting.dataset.val is not None for setting in settings),
        )

    def _settings(self) -> Iterator[_Setting | None]:
        """Every combination of data, model and training; None where a problem was found."""
        experiment, attempt = self.experiment, self.findings.attempt
        data_keys = experiment.keys["data"] or ("data",)  # none, where an objective needs no data
        loaded = [attempt(partial(self._load, *each)) for each in zip(experiment.data, data_keys, strict=True)]
        sets = zip(experiment.data, loaded, data_keys, strict=True)
        models = zip(experiment.models, experiment.keys["model"], strict=True)
        for (data, found, data_key), (model, key) in itertools.product(sets, models):
            if data is not None and found is None:
                continue  # its problem is said already
            for train in experiment.training:
                yield attempt(partial(self._try, data, found, model, {"data": data_key, "model": key}, train))

    def _load(self, data: Component | None, key: str) -> Dataset | None:
        if data is None:
            return None
        loaded = self._call(key, f"{data.name} cannot be loaded", lambda: dataset.load_checked(data))
        for text in dataset.advice(loaded, bool(data.as_dict().get("standardize")), self.experiment.accuracy_margin):
            self.findings.note(f"{data.name}: {text}")
        return loaded

    def _try(
        self,
        data: Component | None,
        loaded: Dataset | None,
        model: Component,
        keys: Mapping[str, str],
        train: Training,
    ) -> _Setting:
        """Build the model and examine it in a few steps."""
        if not is_own(model):  # which might keep tensors of a build without memory
            weights, place = weights_on_meta(model, loaded), self.experiment.place(keys["model"])
            refuse_large_model(weights, model, DTYPES[train.dtype].itemsize, place)
        self._call(keys["model"], f"{model.name} cannot be built", lambda: build_model(model, loaded, seed=0))
        train = with_defaults(train, loaded, data)
        schedule = self._schedule(train, loaded)
        self._try_augmentation(keys["data"], loaded, train, schedule)
        self._try_functions(train, schedule.steps)
        self._check_measures(train, loaded)
        try:
            examination = examine(model, train, loaded)
        except Unsupported as refusal:
            raise self._refused(refusal, model, keys) from None
        example = _example(loaded, DTYPES[train.dtype])
        kept = activations(_built(model, train, loaded), example, max(schedule.batch_sizes(0)))
        return _Setting(data, model, train, loaded, keys, schedule, examination, kept)

    def _rehearse(self, setting: _Setting) -> None:
        """Try the user's own functions in two real steps and one evaluation, with their optimizers and arms."""
        train, parts = setting.train, (setting.data, setting.model)
        optimizers, arms, keys = self.experiment.optimizers, self.experiment.arms, self.experiment.keys
        for optimizer, arm in rehearsal.combinations(optimizers, arms, train, *parts):
            trial = Trial(*parts, optimizers[optimizer], train, arms[arm], self.experiment.seeds[0])
            try:
                rehearsal.rehearse(trial, setting.dataset)
            except Unsupported as refusal:
                where = {**setting.keys, "optimizer": keys["optimizer"][optimizer], "clip": keys["clip"][arm]}
                raise self._refused(refusal, setting.model, where) from None
            except Exception as error:  # noqa: BLE001 - a rule of the user's own may fail in any way
                raise self._error(keys["clip"][arm], f"{trial.strategy} cannot be used: {_sentence(error)}") from None

    def _refused(self, refusal: Unsupported, model: Component, keys: Mapping[str, str]) -> InputError:
        """Return a refusal at the key of what is refused; a default loss is at the key of the model."""
        written = refusal.key != "train.loss" or "train.loss" in self.experiment.places
        key = keys.get(refusal.key, refusal.key) if written else keys["model"]
        text = f"{model.name}: {refusal.text}" if refusal.key == "model" else refusal.text
        return self._error(key, text, refusal.remedy)

    def _check_measures(self, train: Training, loaded: Dataset | None) -> None:
        """Whether the measures that training looks at are there."""
        val = loaded is not None and loaded.val is not None
        there = ["train/loss", *(f"val/{name}" for name in train.measures if val)]
        why = f"is not measured here: there {'are no validation data' if not val else 'is no such metric'}."
        if train.early_stop and train.early_stop.name not in there:
            remedy = (
                f"Write {{measure: {there[-1] if not val else there[1]}, patience: {train.early_stop['patience']}}}."
            )
            place = self.experiment.place("train.early_stop")
            self.findings.add(place, f"{train.early_stop.name} {why}", remedy)
        if train.target and train.target[0] not in there:
            self.findings.note(f"train.target: {train.target[0]} {why}")

    def _try_functions(self, train: Training, steps: int) -> None:
        """Ask a schedule for its factors at the ends of training, and a noise distribution for a few numbers."""
        warmup = train.schedule.as_dict().get("warmup") if train.schedule else None
        if isinstance(warmup, int) and warmup >= steps:
            self.findings.note(f"train.schedule: warmup takes {warmup} steps, but training has only {steps}.")

        def attempt(option: str) -> None:
            component: Component | None = getattr(train, option)
            if component:
                function = partial(try_schedule, steps=steps) if option == "schedule" else try_noise
                self._call(f"train.{option}", f"{component.name} cannot be used", lambda: function(component))

        gather(attempt, ("schedule", "noise"))

    def _schedule(self, train: Training, loaded: Dataset | None) -> TrainingLength:
        try:
            schedule = TrainingLength.of(train, loaded)
        except DataProblem as problem:
            raise self._error("train.batch_size", str(problem)) from None
        if train.precision == "bf16" and train.dtype != "float32":
            text = f"products in bfloat16 need weights in float32, got dtype {train.dtype}."
            raise self._error("train.precision", text, "Remove one of them.")
        if schedule.batches > 1 and (schedule.whole or loaded is None):
            what = "there are no data" if loaded is None else "a batch has all examples"
            raise self._error("train.accumulate", f"there are no batches to accumulate: {what}.", "Remove it.")
        if train.epoch_steps and loaded and loaded.size is not None:
            text = f"epoch_steps is only supported for data without end, and these have {loaded.size:,} examples."
            raise self._error("train.epoch_steps", text, "Remove it.")
        if schedule.epoch_steps == 0 and loaded:
            examples = loaded.size
            text = f"batch_size must be at most {examples}, the number of training examples, got {train.batch_size}."
            raise self._error("train.batch_size", text)
        return schedule

    def _try_augmentation(self, key: str, loaded: Dataset | None, train: Training, schedule: TrainingLength) -> None:
        """Augment batches of all sizes that training has."""
        if loaded is None or loaded.augment is None:
            return
        sizes = {size for step in (0, schedule.epoch_steps - 1) for size in schedule.batch_sizes(step)}
        for size in sorted(sizes, reverse=True):
            batch = partial(loaded.first_batch, DTYPES[train.dtype], size)
            self._call(f"{key}.augment", "the data cannot be augmented", batch)

    def _check_arms(self, settings: Sequence[_Setting]) -> None:
        """Say what arms ask for that a model or its data do not have."""
        arms = list(zip(self.experiment.keys["clip"], self.experiment.arms, strict=True))
        names = {name for setting in settings for name, _ in setting.built().module.named_parameters()}
        found = [*arm_checks.unknown_excludes(arms, names), *group_checks.empty_groups(self.experiment, names)]
        for setting in settings:
            example = _example(setting.dataset, DTYPES[setting.train.dtype])
            trained = [name for name, p in setting.built().module.named_parameters() if p.requires_grad]
            found += arm_checks.nothing_left(arms, setting.model.name, trained)
            found += arm_checks.impossible_scopes(arms, setting.model.name, setting.built, setting.schedule, example)
            gather(self.findings.note, arm_checks.privacy_notes(arms, setting.built().module, setting.dataset))
        for problem in found:
            self.findings.add(self.experiment.place(problem.key), problem.text, problem.remedy)

    def _cohorts(self, setting: _Setting) -> Iterator[Cohort]:
        """Arms that look at the same parts of batches are trained together."""
        parameters = sum(p.numel() for p in setting.built().module.parameters() if p.requires_grad)
        fingerprint = setting.dataset.fingerprint if setting.dataset else ""
        experiment, itemsize = self.experiment, DTYPES[setting.train.dtype].itemsize
        for scope, together in arm_checks.by_scope(experiment.arms).items():
            trials = tuple(
                Trial(setting.data, setting.model, optimizer, setting.train, arm, seed, fingerprint)
                for optimizer, arm, seed in itertools.product(experiment.optimizers, together, experiment.seeds)
            )
            columns = trials[0].columns(only_content=True)
            content = [columns[name] for name in sorted(columns) if name.split(".")[0] in SHARED]
            content += [] if scope == BATCH else [repr(scope)]
            kept = arm_checks.kept_by_parts(Scope.of(scope, setting.schedule), parameters)
            yield Cohort(
                id=digest([content, setting.model.source, fingerprint], 12),
                trials=trials,
                parameters=parameters,
                lane_bytes=itemsize * (4 * parameters + 5 * setting.activations // 4 + kept),
                steps=setting.schedule.steps,
                loop_reason=setting.examination.loop_reason,
            )

    def _call(self, key: str, problem: str, function: Callable[[], T]) -> T:
        """Return what a user's own function returns; if it fails, say so at the key."""
        try:
            return function()
        except DataProblem as found:
            raise InputError(
                Problem(self.experiment.place(key), f"{problem}: {text}") for text in found.texts
            ) from None
        except Exception as error:  # noqa: BLE001 - it may fail in any way
            raise self._error(key, f"{problem}: {_sentence(error)}") from None

    def _error(self, key: str, text: str, remedy: str = "") -> InputError:
        return InputError.at(self.experiment.place(key), text, remedy)


def _directions(settings: Sequence[_Setting]) -> dict[str, bool]:
    metrics = {metric for setting in settings for metric in setting.train.metrics}
    return {m.name.rpartition(":")[2]: registry.of("metric", m).higher_is_better for m in metrics}


def _undeclared(settings: Sequence[_Setting]) -> list[str]:
    """The user's own metrics that do not say whether higher is better."""
    plugins = {m.name: registry.of("metric", m) for setting in settings for m in setting.train.metrics}
    return [name for name, each in plugins.items() if each.source and "higher_is_better" not in each.facts]


def _built(model: Component, train: Training, loaded: Dataset | None) -> Network:
    module = build_model(model, loaded, seed=0).to(DTYPES[train.dtype])
    return Network(module, train, has_data=loaded is not None)


def _example(loaded: Dataset | None, dtype: torch.dtype) -> Batch:
    if loaded is None:
        return torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    return loaded.first_batch(dtype, 4)


def _sentence(error: Exception) -> str:
    if isinstance(error, UnknownName):
        return f"{error.text} {error.remedy}".rstrip()
    return described(error)
