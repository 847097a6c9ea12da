"""What an experiment amounts to, in a few lines or as plain values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from clipbench.errors import Problem
from clipbench.experiment import Experiment
from clipbench.trial import Component, Training


def summary_lines(experiment: Experiment) -> Iterator[str]:
    """The experiment for a terminal."""
    counted = f"{_count(len(experiment.arms), 'arm')} x {_count(len(experiment.seeds), 'seed')}"
    settings = experiment.size // (len(experiment.arms) * len(experiment.seeds))
    others = f" x {_count(settings, 'setting')}" if settings > 1 else ""
    yield f"{experiment.name}: {counted}{others} = {_count(experiment.size, 'trial')}"
    yield f"  data       {_labels(experiment.data)}"
    yield f"  model      {_labels(experiment.models)}"
    yield f"  optimizer  {_labels(experiment.optimizers)}"
    yield f"  train      {'; '.join(_training(training) for training in experiment.training[:4])}"
    for strategy, arms in itertools.groupby(experiment.arms, key=lambda arm: arm.label):
        thresholds = [_threshold(arm) for arm in arms if "threshold" in arm.as_dict()]
        yield f"  arm        {strategy}{' at ' if thresholds else ''}{', '.join(thresholds)}"
    yield from (f"  note       {note}" for note in experiment.notes)


def summary(experiment: Experiment) -> dict[str, Any]:
    """The experiment for a program."""
    return {
        "file": experiment.path,
        "ok": True,
        "name": experiment.name,
        "data": [component.label if component else None for component in experiment.data],
        "models": [component.label for component in experiment.models],
        "optimizers": [component.label for component in experiment.optimizers],
        "arms": [arm.arm for arm in experiment.arms],
        "seeds": list(experiment.seeds),
        "trials": experiment.size,
        "notes": list(experiment.notes),
    }


def problem_values(problem: Problem) -> dict[str, Any]:
    """A mistake for a program."""
    place = problem.place
    return {
        "file": place.file,
        "line": place.line or None,
        "column": place.column or None,
        "key": place.key or None,
        "text": problem.text,
        "remedy": problem.remedy or None,
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _labels(components: tuple[Component | None, ...]) -> str:
    return "; ".join(component.label if component else "none" for component in components)


def _training(training: Training) -> str:
    length = _count(training.epochs, "epoch") if training.epochs else _count(training.steps or 0, "step")
    batches = f"batches of {training.batch_size}" if training.batch_size else "full batches"
    loss = "the loss that the targets ask for" if training.loss.name == "auto" else training.loss.label
    return f"{length}, {batches}, {loss}"


def _threshold(arm: Component) -> str:
    threshold = arm["threshold"]
    return "off" if threshold is None else f"{threshold:g}"
