"""The state of training: saved and loaded, training goes on bit for bit the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipbench import datasets
from clipbench.core.parameter_groups import group_of
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine.chunk_training import ChunkTraining
from clipbench.engine.clipping.lane_order import order
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.engine.state import State
from tests.datasets.test_streams import ORDER
from tests.engine.test_engine import ARMS, MODELS, OPTIMIZERS

C = Component.of
EPOCHS, HALF = 6, 3
NORMAL = C("normal", scale=0.1)
PLAIN = {"batch_size": 16, "loss": C("mse"), "metrics": (C("r2"),)}
TRAININGS = {
    "plain": Training(epochs=EPOCHS, **PLAIN),
    "noise": Training(epochs=EPOCHS, noise=NORMAL, **PLAIN),
    "early stop": Training(epochs=EPOCHS, early_stop=C("val/loss", patience=1, min_delta=0.01), **PLAIN),
    "schedule": Training(epochs=EPOCHS, schedule=C("cosine", final=0.1, warmup=3), **PLAIN),
}


def trials_of(train: Training, optimizers=("momentum", "adam"), arms=("none", "norm", "value", "autoclip", "skip")):
    return order(
        [
            Trial(*MODELS["mlp"], OPTIMIZERS[optimizer], train, ARMS[arm], seed)
            for optimizer in optimizers
            for arm in arms
            for seed in (3, 5)
        ]
    )


def training_of(trials: list[Trial]) -> ChunkTraining:
    data = datasets.load(trials[0].data)
    return ChunkTraining(trials, Workspace(WorkspaceShape.of(trials, "cpu"), data))


def epochs_of(training: ChunkTraining, first: int, last: int) -> None:
    for epoch in range(first, last):
        training._epoch(epoch, lambda done: None)
        training._end_of_epoch(epoch, None)


def assert_equal(one: State, other: State) -> None:
    assert set(one.tensors) == set(other.tensors) and one.step == other.step
    for name, tensor in one.tensors.items():
        np.testing.assert_array_equal(tensor.numpy(), other.tensors[name].numpy(), name)


@pytest.mark.parametrize("train", TRAININGS)
def test_a_saved_training_goes_on_where_it_was_saved(train, tmp_path):
    trials = trials_of(TRAININGS[train], ("momentum", "adam") if train == "plain" else ("adam",))
    whole, second = training_of(trials), training_of(trials)
    epochs_of(whole, 0, HALF)
    torch.save(whole.state.save(), tmp_path / "state.pt")
    epochs_of(whole, HALF, EPOCHS)
    second.state.load(torch.load(tmp_path / "state.pt"))
    epochs_of(second, HALF, EPOCHS)
    assert_equal(whole.state, second.state)


QUANTILE = C("", quantile=0.4, lr=0.5, noise=2.0, min=0.0, max=float("inf"))
ADDED = {
    "a threshold of a quantile": [
        C("norm", **ARMS["norm"].as_dict(), scope="sample", noise=z, adapt=QUANTILE) for z in (0.5, 1.0)
    ],
    "groups": [
        C(ARMS[name].name, **ARMS[name].as_dict(), groups=(0.5, None, 1.5, 0.7)) for name in ("norm", "autoclip")
    ],
}


@pytest.mark.parametrize("arms", ADDED)
def test_what_arms_remember_is_saved(arms):
    optimizer = C("sgd", lr=0.02, momentum=0.9, groups=(group_of(["*.bias"], momentum=0.0, lr=0.01),))
    trials = order(
        [Trial(*MODELS["mlp"], optimizer, TRAININGS["plain"], arm, seed) for arm in ADDED[arms] for seed in (3, 5)]
    )
    whole, second = training_of(trials), training_of(trials)
    epochs_of(whole, 0, HALF)
    saved = whole.state.save()
    epochs_of(whole, HALF, EPOCHS)
    second.state.load(saved)
    epochs_of(second, HALF, EPOCHS)
    assert_equal(whole.state, second.state)


def test_a_stream_goes_on_with_its_own_generators():
    train = Training(epochs=EPOCHS, batch_size=8, epoch_steps=5, loss=C("cross_entropy"), metrics=(C("accuracy"),))
    model = C("rnn", hidden=5, layers=1, embedding=3, activation="tanh", init="default", std=None)
    trials = order([Trial(ORDER, model, OPTIMIZERS["adam"], train, ARMS["norm"], seed) for seed in (3, 5)])
    whole, second = training_of(trials), training_of(trials)
    epochs_of(whole, 0, HALF)
    saved = whole.state.save()
    epochs_of(whole, HALF, EPOCHS)
    second.state.load(saved)
    epochs_of(second, HALF, EPOCHS)
    assert_equal(whole.state, second.state)
