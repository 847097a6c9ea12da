"""Prepare an experiment: load data, build models, try one step of each, and report what is wrong, with its place."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from clipbench import config
from clipbench import datasets as dataset
from clipbench.config import Experiment
from clipbench.core.trial import Component, Training, Trial, digest
from clipbench.datasets import DataProblem, Dataset
from clipbench.engine.gradients.looped import reason_to_loop
from clipbench.engine.gradients.microbatches import BATCH, Scope
from clipbench.engine.inputs.batches import TrainingLength
from clipbench.engine.inputs.gradient_noise import try_noise
from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.model.network import DTYPES, Network, build_model
from clipbench.engine.schedule_factor import try_schedule
from clipbench.errors import Findings, InputError, Problem, UnknownName, gather
from clipbench.planning import arm_checks
from clipbench.planning.constant_predictor import constants_of
from clipbench.planning.plan import Cohort, Plan
from clipbench.planning.source_files import sources
from clipbench.plugins import registry

T = TypeVar("T")

AUTO = "auto"  # the loss is chosen by the data
OUTPUT = "output"  # the model's output is the loss, so there are no metrics


@dataclass(frozen=True)
class _Setting:
    """A combination of data set, model and training that was tried once."""

    data: Component | None
    model: Component
    train: Training
    dataset: Dataset | None
    module: nn.Module
    schedule: TrainingLength
    loop_reason: str
    activations: int  # elements that one lane's forward pass keeps for its backward pass


def prepare(path: str, sets: Sequence[str] = (), seeds: int | None = None) -> Plan:
    """Load an experiment and plan it; raises InputError with every mistake that the data and models show."""
    began = time.time_ns()
    plan = _Preparation(config.load(path, sets, seeds)).plan()
    return replace(plan, sources=sources(plan.experiment, began))


class _Preparation:
    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.findings = Findings(notes=list(experiment.notes))

    def plan(self) -> Plan:
        settings = [setting for setting in self._settings() if setting]
        self._check_arms(settings)
        self.findings.raise_if_any()
        cohorts = tuple(cohort for setting in settings for cohort in self._cohorts(setting))
        for setting in settings:
            if setting.loop_reason:
                text = f"{setting.model.name} is trained one model after another: {setting.loop_reason}."
                self.findings.note(text)
        return Plan(
            experiment=self.experiment,
            cohorts=cohorts,
            notes=tuple(self.findings.notes),
            higher=_directions(settings),
            norm_rules=arm_checks.norm_rules(cohorts),
            examples={data.fingerprint: data.examples for data in (setting.dataset for setting in settings) if data},
            constants=constants_of((each.module, each.train, each.dataset) for each in settings),
            validates=all(setting.dataset is not None and setting.dataset.val is not None for setting in settings),
        )

    def _settings(self) -> Iterator[_Setting | None]:
        """Every combination of data, model and training; None where a problem was found."""
        experiment, attempt = self.experiment, self.findings.attempt
        data_keys = experiment.keys["data"] or ("data",)  # none, where an objective needs no data
        loaded = [attempt(partial(self._load, *each)) for each in zip(experiment.data, data_keys, strict=True)]
        models = list(zip(experiment.models, experiment.keys["model"], strict=True))
        for (data, found), (model, key) in itertools.product(zip(experiment.data, loaded, strict=True), models):
            if data is not None and found is None:
                continue  # its problem is said already
            for train in experiment.training:
                yield attempt(partial(self._try, data, found, model, key, train))

    def _load(self, data: Component | None, key: str) -> Dataset | None:
        if data is None:
            return None
        loaded = self._call(key, f"{data.name} cannot be loaded", lambda: dataset.load(data))
        for text in dataset.advice(loaded, standardized=bool(data.as_dict().get("standardize"))):
            self.findings.note(f"{data.name}: {text}")
        return loaded

    def _try(
        self, data: Component | None, loaded: Dataset | None, model: Component, key: str, train: Training
    ) -> _Setting:
        """Build the model and take one step of forward pass and loss on a few examples."""
        module = self._call(key, f"{model.name} cannot be built", lambda: build_model(model, loaded, seed=0))
        train = _with_defaults(train, loaded, data)
        schedule = self._schedule(train, loaded)
        self._try_functions(train, schedule.steps)
        self._check_measures(train, loaded)
        module.to(DTYPES[train.dtype])
        network = Network(module, train, has_data=loaded is not None)
        example = _example(loaded, network.dtype)
        try:
            activations = _activations(network, example, schedule.batch)
            reason = reason_to_loop(network, example)
        except Exception as error:  # noqa: BLE001 - the user's own function may fail in any way
            shapes = f" on inputs {tuple(example[0].shape)}" if loaded else ""
            output = _output(network, example)
            said = "train.loss" in self.experiment.places and output is not None
            text = f"{model.name} with loss {train.loss.name} cannot be trained{shapes}: {_sentence(error)}"
            remedy = _beside(output, example[1]) or _no_input(network)
            raise self._error("train.loss" if said else key, text, remedy) from None
        return _Setting(data, model, train, loaded, module, schedule, reason, activations)

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
        if schedule.epoch_steps == 0 and loaded:
            examples = len(loaded.train[0])
            text = f"batch_size must be at most {examples}, the number of training examples, got {train.batch_size}."
            raise self._error("train.batch_size", text)
        return schedule

    def _check_arms(self, settings: Sequence[_Setting]) -> None:
        """Say what arms ask for that a model or its data do not have."""
        arms = list(zip(self.experiment.keys["clip"], self.experiment.arms, strict=True))
        names = {name for setting in settings for name, _ in setting.module.named_parameters()}
        found = list(arm_checks.unknown_excludes(arms, names))
        for setting in settings:
            network = Network(setting.module, setting.train, has_data=setting.dataset is not None)
            example = _example(setting.dataset, network.dtype)
            found += arm_checks.nothing_left(arms, setting.model.name, network)
            found += arm_checks.impossible_scopes(arms, setting.model.name, network, setting.schedule, example)
            for note in arm_checks.privacy_notes(arms, isinstance(setting.dataset, dataset.Stream)):
                self.findings.note(note)
        for problem in found:
            self.findings.add(self.experiment.place(problem.key), problem.text, problem.remedy)

    def _cohorts(self, setting: _Setting) -> Iterator[Cohort]:
        """Arms that look at the same parts of batches are trained together."""
        parameters = sum(p.numel() for p in setting.module.parameters() if p.requires_grad)
        fingerprint = setting.dataset.fingerprint if setting.dataset else ""
        experiment, itemsize = self.experiment, DTYPES[setting.train.dtype].itemsize
        for scope, together in arm_checks.by_scope(experiment.arms).items():
            trials = tuple(
                Trial(setting.data, setting.model, optimizer, setting.train, arm, seed, fingerprint)
                for optimizer, arm, seed in itertools.product(experiment.optimizers, together, experiment.seeds)
            )
            content = [trials[0].columns()[name] for name in sorted(trials[0].columns()) if _shared(name)]
            content += [] if scope == BATCH else [repr(scope)]
            kept = arm_checks.kept_by_parts(Scope.of(scope, setting.schedule.batch), parameters)
            yield Cohort(
                id=digest([content, setting.model.source, fingerprint], 12),
                trials=trials,
                parameters=parameters,
                lane_bytes=itemsize * (4 * parameters + 5 * setting.activations // 4 + kept),
                steps=setting.schedule.steps,
                loop_reason=setting.loop_reason,
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


def _shared(column: str) -> bool:
    return column.split(".")[0] in ("data", "model", "train")


def _with_defaults(train: Training, loaded: Dataset | None, data: Component | None) -> Training:
    """What a built-in data set is meant for; else classes are trained by cross entropy and judged by accuracy, real
    targets by mse, and r2 beside it."""
    classes = loaded is not None and loaded.classes
    facts = registry.of("data", data).facts if data else {}
    if train.loss.name == AUTO:
        train = replace(train, loss=Component.of(facts.get("loss") or ("cross_entropy" if classes else "mse")))
    if not train.metrics and loaded is not None and train.loss.name != OUTPUT:
        meant = facts.get("metrics") or registry.of("loss", train.loss).facts.get("metrics")
        names = meant or (("accuracy",) if classes else ("mse", "r2"))
        train = replace(train, metrics=tuple(Component.of(name) for name in names))
    return train


def _example(loaded: Dataset | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if loaded is None:
        return torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    x, y = (torch.as_tensor(array[:4]) for array in loaded.train)
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in (x, y))  # type: ignore[return-value]


def _output(network: Network, example: tuple[Tensor, Tensor]) -> Tensor | None:
    """Return the model's output, or None if the model itself fails; with an output, the loss is at fault."""
    if network.loss_is_output:
        return None
    params, states = dict(network.module.named_parameters()), dict(network.module.named_buffers())
    try:
        with torch.random.fork_rng(devices=[]):
            return network.predict(params, states, example[0])
    except Exception:  # noqa: BLE001 - the user's own function may fail in any way
        return None


def _beside(output: Tensor | None, target: Tensor) -> str:
    """Describe the inputs of a loss."""
    if output is None:
        return ""
    kind = "real numbers" if target.is_floating_point() else "classes"
    return f"The model returns shape {tuple(output.shape)}, and the targets are {kind} of shape {tuple(target.shape)}."


def _no_input(network: Network) -> str:
    takes = inspect.signature(network.module.forward).parameters
    return "" if takes or not network.has_data else "Its forward takes no input; remove the data."


def _activations(network: Network, example: tuple[Tensor, Tensor], batch: int) -> int:
    """Elements that a step of a whole batch keeps for its backward pass, counted on a few examples."""
    own = {parameter.data_ptr() for parameter in network.module.parameters()}
    kept: dict[int, Tensor] = {}  # by their memory: views share it, and what is kept here is not used again

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    states = {name: buffer.clone() for name, buffer in network.module.named_buffers()}
    count = saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.random.fork_rng(devices=[]), layers_for_many(), count:
        network.loss(dict(network.module.named_parameters()), states, *example)
    elements = sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in kept.values())
    return elements * batch // max(len(example[0]), 1)


def _sentence(error: Exception) -> str:
    if isinstance(error, UnknownName):
        return f"{error.text} {error.remedy}".rstrip()
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.') if lines else 'no message'}."
