"""Training on devices other than the CPU, as far as it can be proven without one.

Tensors on `meta` have shapes and no numbers: they take every branch of a device that is not the CPU, and raise where
the host would read a number. On the CPU, the steps that need no host must give the numbers of the usual ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.compiler.library import found
from clipbench.config.arm_options import validate_adapt
from clipbench.core.parameter_groups import group_of
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine.chunk_training import ChunkTraining
from clipbench.engine.clipping.lane_order import order
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.engine.optimizers import has_formula
from clipbench.engine.step_runner import StepRunner
from clipbench.engine.step_statistics import StepStatistics
from clipbench.plugins import registry

C = Component.of


def names(kind: str) -> list[str]:
    return sorted(registry.catalogue(kind))


def with_defaults(kind: str, name: str, **options: Any) -> Component:
    known = registry.of(kind, C(name)).options.values()
    defaults = {option.name: option.default for option in known if option.default is not registry.REQUIRED}
    return C(name, **(defaults | options))


DIGITS = C("digits", limit=70, **{"split.val": 0.2, "split.test": 0.2, "split.seed": 0, "standardize": False})
SEQUENCES = C("temporal_order", length=20, **{"split.val": 20, "split.test": 20, "split.seed": 0})
CHARACTERS = with_defaults("data", "text", length=16, characters=1500, **{"split.val": 0.2, "split.test": 0.2})
GROUPS = group_of(("*.bias",), threshold=0.5), group_of(("*",), threshold=1.0)
NO_DECAY = group_of(("*.bias",), weight_decay=0.0, lr=0.02)
NORM = C("norm", threshold=0.5, p=2.0, per="model", exclude=())
SGD = C("sgd", lr=0.05, momentum=0.9)
PLACES = ("model", "tensor", "unit")


def arm(name: str, **options: Any) -> Component:
    plugin = registry.of("strategy", C(name))
    low, high = plugin.facts.get("search") or (0.5, 0.5)
    threshold = {"threshold": float(np.sqrt(low * high))} if "threshold" in plugin.options else {}
    return with_defaults("strategy", name, **{"exclude": (), **threshold, **options})


def setting(model: str) -> tuple[Component | None, Component, dict[str, Any]]:
    """The data that a model is for, the model, and the options of its training."""
    plugin = registry.of("model", C(model))
    if model == "gpt":
        return CHARACTERS, with_defaults("model", model), {"epochs": 1}
    if "tokens" in plugin.given:
        return SEQUENCES, with_defaults("model", model), {"epochs": None, "steps": 4, "epoch_steps": 4}
    if "inputs" in plugin.given:
        return DIGITS, with_defaults("model", model), {"epochs": 1}
    train = {"epochs": None, "steps": 4, "epoch_steps": 4, "loss": C("output"), "metrics": ()}
    return None, with_defaults("model", model), train


def fact(rule: str, name: str) -> Any:
    return registry.of("strategy", C(rule)).facts.get(name)


def takes_place(rule: str) -> bool:
    """Whether a rule can look at the model, at tensors or at units."""
    return fact(rule, "per") in PLACES and fact(rule, "on") != "weights"


def of_parts() -> list[str]:
    """The rules that can clip parts of a batch."""
    return [name for name in names("strategy") if fact(name, "on") != "weights"]


def formulas() -> list[str]:
    return [name for name in names("optimizer") if has_formula(C(name))]


def trials_of(
    model: str = "mlp",
    arms: list[Component] | None = None,
    optimizers: list[Component] | None = None,
    data: dict[str, Any] | None = None,
    **options: Any,
) -> list[Trial]:
    examples, component, of_model = setting(model)
    if data and examples:
        examples = C(examples.name, **examples.as_dict(), **data)
    fixed = {"batch_size": 16, "loss": C("cross_entropy"), "metrics": (C("accuracy"),)}
    train = Training(**{**fixed, **of_model, **options})
    arms = arms or [C("none"), NORM]
    parts = itertools.product(optimizers or [SGD], arms, (1, 2))
    return order([Trial(examples, component, optimizer, train, each, seed) for optimizer, each, seed in parts])


CASES: dict[str, dict[str, Any]] = {
    **{f"model {name}": {"model": name} for name in names("model")},
    # Arms of one chunk share the program of the gradient, which takes longest to make.
    **{
        f"rules per {per}": {"arms": [arm(name, per=per) for name in names("strategy") if takes_place(name)]}
        for per in PLACES
    },
    "rules of elements, steps and weights": {
        "arms": [arm(name) for name in names("strategy") if not takes_place(name)]
    },
    "rules of shards": {"arms": [arm(name, scope=C("shards", n=2)) for name in of_parts()]},
    "rules of examples": {"arms": [arm(name, scope="sample") for name in of_parts() if not fact(name, "init")]},
    "optimizers": {"arms": [NORM], "optimizers": [with_defaults("optimizer", name, lr=0.01) for name in formulas()]},
    "a schedule": {"schedule": with_defaults("schedule", "cosine", warmup=1)},  # factors come from the host
    "noise": {"noise": with_defaults("noise", "normal")},
    "updates": {"arms": [arm("norm", after="momentum")]},
    "privacy": {"arms": [arm("norm", scope="sample", noise=1.0)]},
    "warmup": {"arms": [arm("norm", warmup=2), arm("agc", warmup=2)]},
    "exclude": {"arms": [arm("norm", exclude=("head",)), arm("value", exclude=("*.bias",))]},
    "groups of thresholds": {"arms": [arm(name, groups=GROUPS) for name in ("norm", "value", "autoclip")]},
    "a threshold a parameter": {"arms": [arm("norm", threshold=1.0, groups=(0.1, 0.2, 0.3, 0.4))]},
    "groups of the optimizer": {"optimizers": [with_defaults("optimizer", "adamw", groups=(NO_DECAY,))]},
    "columns": {"arms": [arm("agc", per="column", p=1.0)]},
    "an error if not finite": {"arms": [arm("value", error_if_nonfinite=True)]},
    "a threshold that adapts": {
        "arms": [arm("norm", scope="sample", noise=1.0, adapt=validate_adapt({"quantile": 0.5, "noise": 3.0}))]
    },
    "augmentation": {"data": {"augment": C("jitter", std=0.1)}},
    "augmentation of whole batches": {"data": {"augment": C("mixup", alpha=0.2)}, "batch_size": None},
    "other norms": {"arms": [arm("norm", p=p) for p in (1.0, 3.0, float("inf"))]},
    "accumulate": {"accumulate": 2},
    "average": {"ema": 0.9},
    "half": {"precision": "bf16"},
    "double": {"dtype": "float64"},
    "penalties": {"l1": 0.01, "l2": 0.01},
    "smoothed labels": {"loss": C("cross_entropy", label_smoothing=0.1)},
    "whole batches": {"batch_size": None},
}
# What plain loops would train models of the user's own with.
OWN = {
    "dropout": C("tests.toys:with_dropout"),
    "batch norm": C("tests.toys:with_batch_norm"),
    "buffers": C("tests.toys:counts_batches"),
    "drawing in eval mode": C("tests.toys:never_stops_dropping"),
    "tied": C("tests.toys:tied"),
    "frozen": C("tests.toys:frozen_body"),
}


def test_every_optimizer_but_those_that_are_refused_is_a_formula():
    """An object of torch.optim is called by the host, for each lane and step."""
    assert set(names("optimizer")) - set(formulas()) <= {"lbfgs", "sparse_adam"}


def cases() -> Iterator[Any]:
    yield from (pytest.param(trials_of, case, id=name) for name, case in CASES.items())
    for name, model in OWN.items():
        make = lambda model=model: [replace(trial, model=model) for trial in trials_of()]  # noqa: E731
        yield pytest.param(make, {}, id=name)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# Rules of tensors and elements, every optimizer, and models of every kind; `slow` has the others.
IN_SLOW = {
    *("rules per model", "rules per unit", "rules of shards", "rules of examples"),
    *("other norms", "exclude", "groups of thresholds", "a threshold a parameter", "columns", "an error if not finite"),
    *("augmentation", "smoothed labels", "penalties", "a schedule", "double", "groups of the optimizer"),
    *("model deep_mlp", "model gru", "model lstm", "model transformer", "model gpt", "model resnet"),  # large graphs
    *("buffers", "tied"),
}


@pytest.mark.parametrize(
    "make, case",
    [pytest.param(*each.values, id=each.id, marks=pytest.mark.slow if each.id in IN_SLOW else ()) for each in cases()],
)
def test_an_epoch_reads_nothing_from_the_device(make, case, monkeypatch):
    trials = make(**case)
    if trials[0].train.precision == "bf16":
        pytest.skip("PyTorch has no autocast for tensors without numbers")
    monkeypatch.setattr(StepStatistics, "fetch", lambda *_: None)  # copies arrive in the CPU's memory
    data = datasets.load(trials[0].data) if trials[0].data else None
    workspace = Workspace(WorkspaceShape.of(trials, "meta"), data)
    training = ChunkTraining(trials, workspace)
    done = 0
    while done < training.length.epoch_steps:
        count = training._steps_alike(done, training.length.epoch_steps)
        training._block(done, count)
        done += count
    assert workspace.path in ("replay", "eager"), training.note
    assert workspace.device_steps, "steps were taken by the host"
    assert all(value.is_meta for value in workspace.vanishing_and_norms())
    for part in (name for name, examples in workspace.parts.items() if examples is not None):
        assert workspace.evaluate(part).is_meta


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CLIPBENCH_NATIVE", "0")
    found.cache_clear()
    engine.WORKSPACES.clear()
    yield
    engine.WORKSPACES.clear()
    monkeypatch.undo()
    found.cache_clear()


def without_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepRunner, "_needs_no_host", lambda self, gradients: gradients.path != "looped")


# What differs in how a step finds its inputs and leaves its results; `slow` has the others.
FEW = {
    *("model mlp", "model rnn", "rules per tensor", "rules of elements, steps and weights"),
    *(
        "noise",
        "privacy",
        "augmentation",
        "a threshold that adapts",
        "accumulate",
        "average",
        "half",
        "whole batches",
        *OWN,
    ),
}


@pytest.mark.parametrize(
    "make, case",
    [pytest.param(*each.values, id=each.id, marks=() if each.id in FEW else pytest.mark.slow) for each in cases()],
)
def test_steps_without_the_host_give_the_numbers_of_those_with_it(make, case, monkeypatch, no_kernels):
    trials = make(**case)
    expected = engine.train(trials)
    engine.WORKSPACES.clear()
    without_host(monkeypatch)
    other = engine.train(trials)
    for name, values in expected.steps.items():
        if values.dtype.kind == "f":
            np.testing.assert_array_equal(other.steps[name], values, err_msg=name)
    for name, values in expected.records.items():
        if values.dtype.kind == "f" and not name.startswith(("seconds", "step_us")):
            np.testing.assert_array_equal(other.records[name].astype(float), values.astype(float), err_msg=name)
