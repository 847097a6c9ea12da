"""The loss and the metrics of a training that names none: those that its data are meant for."""

from __future__ import annotations

from dataclasses import replace

from clipbench.core.trial import Component, Training
from clipbench.datasets import Dataset
from clipbench.plugins import registry

AUTO = "auto"  # the loss is chosen by the data
OUTPUT = "output"  # the model's output is the loss, so there are no metrics


def with_defaults(train: Training, loaded: Dataset | None, data: Component | None) -> Training:
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
