"""Every rule in a training loop with Clipper equals the plain loop and the engine, its memory included."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.clipper import list_layout
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine import step
from clipbench.engine.chunk_training import ChunkTraining
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.plugins import registry
from tests import oracle
from tests.clipper.clipper_loop import ClipperLoop, weights_of
from tests.engine.test_engine import ARMS, MODELS, OPTIMIZERS

C = Component.of
STEPS = 10
RULES = registry.catalogue("strategy")
PLACES = ("model", "tensor", "unit", "column")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def arms() -> dict[str, Component]:
    """The arms of the engine's tests, and every rule at every other place."""
    found = dict(ARMS)
    for name, arm in ARMS.items():
        if name == arm.name and arm.as_dict().get("per") in PLACES and RULES[name].clips:
            for per in sorted(set(PLACES) - {arm["per"]}):
                options = arm.as_dict() | {"per": per}
                found.setdefault(f"{name} per {per}", C(name, **options))
    return found


EVERY = arms()


def trial_of(arm: Component, model: str = "mlp", optimizer: str = "momentum", **train: object) -> Trial:
    loss = C("cross_entropy" if model == "cnn" else "mse")
    options = {"epochs": None, "steps": STEPS, "batch_size": 16, "loss": loss, "dtype": "float64"} | train
    return Trial(*MODELS[model], OPTIMIZERS[optimizer], Training(**options), arm, 3)


COLUMNS = dict(zip(step.COLUMNS, ("loss", "pre", "post", "maximum", "fired", "fraction", "cosine"), strict=True))


def assert_close(trial: Trial, run: oracle.Run, expected: Mapping[str, Sequence[float]], tolerance: float) -> None:
    for column, name in COLUMNS.items():
        np.testing.assert_allclose(
            run.column(name), expected[column], rtol=tolerance, atol=tolerance, err_msg=f"{trial.arm}: {column}"
        )


def assert_as_plain_loop(trial: Trial, tolerance: float = 1e-6) -> None:
    expected, loop = oracle.Loop(trial, datasets.load(trial.data)), ClipperLoop(trial)
    expected.train(STEPS)
    loop.train(STEPS)
    columns = {column: expected.run.column(name) for column, name in COLUMNS.items()}
    assert_close(trial, loop.run, columns, tolerance)
    torch.testing.assert_close(weights_of(loop), weights_of(expected), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ARMS)
def test_a_rule_in_a_loop_is_what_it_is_in_the_plain_loop(name):
    assert_as_plain_loop(trial_of(ARMS[name], optimizer="adam" if "momentum" in name else "momentum"))


@pytest.fixture(scope="module")
def trained() -> Records:
    """What the engine makes of every arm."""
    torch.set_num_threads(1)
    return engine.train([trial_of(arm, "cnn") for arm in EVERY.values()])


@pytest.mark.parametrize("small", [list_layout.SMALL, 10], ids=["small", "large"])
@pytest.mark.parametrize("name", EVERY)
def test_a_rule_in_a_loop_is_what_it_is_in_the_engine(name, small, trained, monkeypatch):
    """Tensors that are put into a buffer, and, with a lower limit, those that are not."""
    monkeypatch.setattr(list_layout, "SMALL", small)
    trial = trial_of(EVERY[name], "cnn")
    mine = trained.steps["id"] == trial.id
    loop = ClipperLoop(trial)
    loop.train(STEPS)
    assert_close(trial, loop.run, {column: trained.steps[column][mine] for column in COLUMNS}, 1e-6)


def test_every_rule_is_compared():
    assert {arm.name for arm in EVERY.values()} == set(RULES)


REMEMBERING = [name for name, arm in EVERY.items() if RULES[arm.name].facts["init"]]


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_rule_remembers_what_it_remembers_in_the_engine(name):
    trial = trial_of(EVERY[name])
    trials = [trial, trial]
    training = ChunkTraining(trials, Workspace(WorkspaceShape.of(trials, "cpu"), datasets.load(trial.data)))
    training.run(lambda done: None)
    loop = ClipperLoop(trial)
    loop.train(STEPS)
    memory = loop.clipper.state_dict()["memory"]
    assert memory
    for key, value in memory.items():
        torch.testing.assert_close(value, training.state.tensors[f"0/memory.{key}"][0], rtol=1e-6, atol=1e-9)


COURSES = {
    "a warmup": {"warmup": 4},
    "a schedule": {"schedule": C("linear", final=0.1, warmup=0)},
    "the learning rate": {"schedule": C("follow_lr")},
    "one over the learning rate": {"schedule": C("against_lr")},
    "a warmup and a schedule": {"warmup": 3, "schedule": C("linear", final=0.1, warmup=0)},
}


@pytest.mark.parametrize("name", ["norm", "value", "normalize", "autoclip", "skip", "weight_clamp", "norm_growth"])
@pytest.mark.parametrize("course", COURSES)
def test_a_threshold_moves_as_in_the_engine(course, name):
    if name == "weight_clamp" and "schedule" in COURSES[course]:
        pytest.skip("the oracle has the schedule of a weight before its step")
    arm = C(name, **ARMS[name].as_dict(), **COURSES[course])
    assert_as_plain_loop(trial_of(arm, schedule=C("linear", final=0.2, warmup=0)))


GROUPS = {
    "patterns": (C("", match=("0",), threshold=0.5), C("", match=("*.bias",), threshold=None), C("", match=("*",), threshold=2.0)),
    "numbers": (0.5, 3.0, 1.5, 0.7),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *itertools.product(
            GROUPS, ["norm", "value", "norm per tensor", "autoclip", "zclip without head", "weight_clamp"]
        )
    ],
)
def test_groups_are_clipped_on_their_own(kind, name):
    assert_as_plain_loop(trial_of(C(ARMS[name].name, **ARMS[name].as_dict(), groups=GROUPS[kind])))


@pytest.mark.parametrize("name", ["norm", "agc", "value", "zclip", "autoclip per tensor", "weight_clamp"])
def test_float32_stays_with_the_plain_loop(name):
    assert_as_plain_loop(trial_of(EVERY[name], dtype="float32"), tolerance=1e-4)
