"""Lanes that end leave the others as they are: they are bit for bit the same as without them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipbench import engine
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine.gradients import workspace_cache
from clipbench.engine.gradients.workspace import WorkspaceShape
from clipbench.engine.gradients.workspace_cache import WorkspaceCache
from clipbench.plugins import registry
from tests.cli_helpers import TIMINGS
from tests.datasets.test_streams import ORDER
from tests.engine.test_engine import ARMS, LATE, MODELS, MOVES, OPTIMIZERS, SCHEDULES, training
from tests.engine.test_looped import LOOPED
from tests.engine.test_looped import TABLE as LINE
from tests.engine.test_scope import FOUR, SEVEN, in_scope
from tests.plugins.test_models import CHOSEN, TOKENS, VECTORS
from tests.plugins.test_models import MODELS as NETWORKS
from tests.thinning import one_of

C = Component.of
NORMAL = C("normal", scale=0.5)
EPOCHS = 7


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def long(train: Training, epochs: int = EPOCHS, **changes: object) -> Training:
    return replace(train, steps=None, epochs=epochs, save_weights=True, **changes)


def trials_of(model="mlp", optimizers=("momentum",), arms=("none", "norm", "value"), seeds=(3, 5), **changes):
    data, component = MODELS[model] if isinstance(model, str) else model
    train = long(training(model if isinstance(model, str) else "mlp", "float32", 1), **changes)
    clips = [ARMS[arm] if isinstance(arm, str) else arm for arm in arms]
    return [
        Trial(data, component, OPTIMIZERS[optimizer], train, clip, seed)
        for optimizer in optimizers
        for clip in clips
        for seed in seeds
    ]


class Pruner:
    """Prunes every trial but two, at epochs drawn by a generator."""

    def __init__(self, trials: list[Trial]) -> None:
        draw = np.random.default_rng(0)
        lost = draw.permutation(len(trials))[2:]
        self.when = {trials[k].id: int(draw.choice([1, 1, 2, 4])) for k in lost}

    def __call__(self, epoch, told):
        return {id_ for id_ in told if self.when.get(id_) == epoch}


def among(trials: list[Trial], choose_pruned: Callable[..., Collection[str]] | None = None) -> Records:
    """Train trials of which some end early; check that the others are the same without these, and return all."""
    records = engine.train(trials, choose_pruned=choose_pruned)
    finished = set(records.records["id"][records.records["status"] == "finished"])
    if finished:
        assert_same(records, engine.train([trial for trial in trials if trial.id in finished]), finished)
    return records


def assert_same(one: Records, other: Records, ids: set[str]) -> None:
    for table in ("records", "epochs", "steps"):
        mine, theirs = getattr(one, table), getattr(other, table)
        chosen = np.array([id_ in ids for id_ in mine["id"]])
        assert {*theirs} <= {*mine}
        for name in theirs:
            if name not in TIMINGS:
                np.testing.assert_equal(mine[name][chosen].tolist(), theirs[name].tolist(), f"{table}: {name}")
    assert set(other.weights) == ids
    for id_, weights in other.weights.items():
        np.testing.assert_array_equal(weights, one.weights[id_])


# The state of lanes


EVERY_RULE = [(optimizer, third) for optimizer in ("momentum", "adam") for third in range(3)]
EVERY_OPTIMIZER = [(optimizer, number % 3) for number, optimizer in enumerate(OPTIMIZERS)]


@pytest.mark.parametrize("optimizer", one_of(2, OPTIMIZERS))
def test_states_of_rules_and_optimizers_move_with_their_lanes(optimizer):
    """Each rule with one optimizer, and each optimizer with a few rules."""
    arms = list(ARMS)[list(OPTIMIZERS).index(optimizer) :: len(OPTIMIZERS)]
    trials = trials_of(optimizers=[optimizer], arms=arms, seeds=(3, 5, 6, 8))
    records = among(trials, Pruner(trials))
    assert set(records.records["status"]) == {"finished", "pruned"}


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "third"), sorted({*EVERY_RULE, *EVERY_OPTIMIZER}))
def test_states_of_many_rules_and_an_optimizer_move_with_their_lanes(optimizer, third):
    trials = trials_of(optimizers=[optimizer], arms=list(ARMS)[third::3], seeds=(3, 5, 6, 8))
    records = among(trials, Pruner(trials))
    assert set(records.records["status"]) == {"finished", "pruned"}


REMEMBERING = [name for name, arm in ARMS.items() if registry.find("strategy", arm.name).facts["init"]]


@pytest.mark.parametrize("arm", one_of(2, [*REMEMBERING, "skip", "drop", "halve"]))
def test_a_rule_with_a_state_continues_alone(arm):
    trials = trials_of(arms=["none", arm, "value"], seeds=range(4))
    stay = {trial.id for trial in trials if trial.clip == ARMS[arm]}
    records = among(trials, lambda epoch, told: set(told) - stay if epoch == 2 else ())
    assert set(records.records["id"][records.records["status"] == "finished"]) == stay


def test_lanes_of_several_optimizers_end_until_one_optimizer_is_left():
    trials = trials_of(optimizers=["momentum", "adam", "rprop"], arms=["none", "skip", "norm", "value"])
    adam = {trial.id for trial in trials if trial.optimizer.name == "adam"}
    among(trials, lambda epoch, told: set(told) - adam if epoch == 1 else list(adam)[:5] if epoch == 3 else ())


@pytest.mark.parametrize("schedule", one_of(3, SCHEDULES))
def test_learning_rates_and_thresholds_keep_their_schedule(schedule):
    arms = [C(arm.name, **moves | arm.as_dict()) for arm in (ARMS["norm"], ARMS["value"]) for moves in MOVES.values()]
    trials = trials_of(optimizers=["momentum", "adam"], arms=arms, schedule=SCHEDULES[schedule])
    among(trials, Pruner(trials))


def test_a_threshold_keeps_its_schedule_at_a_learning_rate_of_zero():
    arm = C("norm", **ARMS["norm"].as_dict(), schedule=C("against_lr"))
    trials = trials_of(arms=["none", arm], seeds=range(4), schedule=C("linear", final=0.0, warmup=0))
    stay = {trial.id for trial in trials if trial.clip == arm}
    among(trials, lambda epoch, told: set(told) - stay if epoch == EPOCHS - 1 else ())


@pytest.mark.parametrize("optimizer", one_of(2, ["sgd", "adam"]))
def test_rules_on_updates_continue(optimizer):
    trials = trials_of(optimizers=[optimizer], arms=[*list(LATE.values())[::2], "none", "norm"])
    among(trials, Pruner(trials))


CELLS = {"hidden": 32, "layers": 1, "embedding": 3}  # a multiple of a register
WHOLE = {
    "gru of 32": (TOKENS, C("gru", **CELLS)),
    "lstm of 32": (VECTORS, C("lstm", **CELLS)),
    "rnn sigmoid of 32": (VECTORS, C("rnn", **CELLS, activation="sigmoid", init="default", std=None)),
}


@pytest.mark.parametrize("model", MODELS)
def test_a_model_continues(model):
    trials = trials_of(model, arms=["none", "norm", "value", "autoclip", "skip"])
    among(trials, Pruner(trials))


# The others take much longer. PyTorch's kernels compute the same bits for lanes that are a multiple of a register.
FIRST = ("rnn sigmoid", "rnn sigmoid of 32", "cnn of article 1")
EVERY_MODEL = [
    pytest.param(model, marks=[pytest.mark.slow] * (model not in FIRST) + [pytest.mark.native] * (model not in WHOLE))
    for model in [*NETWORKS, *WHOLE]
]


@pytest.mark.parametrize("model", EVERY_MODEL)
def test_every_model_continues_unless_its_numbers_depend_on_their_position(model):
    train = long(Training(batch_size=16, loss=C("cross_entropy"), metrics=(C("accuracy"),)), 4)
    parts = (*{**NETWORKS, **WHOLE}[model], OPTIMIZERS["adam"], train)
    trials = [Trial(*parts, ARMS[arm], seed) for arm in CHOSEN for seed in (3, 5)]
    among(trials, Pruner(trials))


FOREIGN = ("CountsEverything", "OwnTorchGenerator", "AlternatesHeads", "LayerDrop")
OWN_STATE = [*(f"tests.toys:{name}" for name in LOOPED), *(f"tests.engine.foreign_models:{name}" for name in FOREIGN)]


@pytest.mark.parametrize("model", OWN_STATE)
def test_looped_models_continue_with_their_state_and_random_numbers(model):
    trials = trials_of((LINE, C(model)), arms=["none", "norm", "skip", "value"], batch_size=8)
    records = among(trials, Pruner(trials))
    assert set(records.records["engine"]) == {"looped"}


@pytest.mark.parametrize("scope", one_of(2, ["sample", FOUR, SEVEN]), ids=["sample", "four", "seven"])
def test_rules_on_microbatches_continue_with_their_noise(scope):
    arms = in_scope(scope)
    private = [C(arm.name, **arm.as_dict(), noise=0.7) for arm in arms if arm.name == "norm" and arm["threshold"]]
    trials = trials_of(arms=[*arms[::3], *private], optimizers=["adam"])
    among(trials, Pruner(trials))


@pytest.mark.parametrize("seeds", [(3, 5, 8), (4,)])
@pytest.mark.parametrize(
    "changes",
    [{"noise": NORMAL}, {"noise": C("levy", alpha=1.5, scale=0.05), "dtype": "float64"}, {"batch_size": None}],
)
def test_batches_and_noise_of_every_seed_continue(seeds, changes):
    trials = trials_of(arms=["none", "norm", "value", "agc", "skip"], seeds=seeds, **changes)
    among(trials, Pruner(trials))


def test_noise_on_microbatches_continues():
    arms = [C(ARMS[arm].name, **ARMS[arm].as_dict(), scope=FOUR) for arm in ("norm", "value", "autoclip per tensor")]
    trials = trials_of(arms=arms, seeds=(3, 5, 8), noise=NORMAL)
    among(trials, Pruner(trials))


@pytest.mark.parametrize("seeds", [(3, 5, 8), (4,)])
def test_streams_continue(seeds):
    train = Training(batch_size=8, epoch_steps=5, loss=C("cross_entropy"), metrics=(C("accuracy"),))
    model = C("rnn", hidden=5, layers=1, embedding=3, activation="tanh", init="default", std=None)
    clips = [ARMS[arm] for arm in ("none", "norm", "value", "zclip", "skip")]
    trials = [Trial(ORDER, model, OPTIMIZERS["adam"], long(train), clip, seed) for clip in clips for seed in seeds]
    among(trials, Pruner(trials))


# How and when lanes end


STOP = C("val/loss", patience=1, min_delta=0.01)


def test_lanes_that_stop_early_keep_the_weights_they_stopped_with():
    trials = trials_of(
        optimizers=["sgd", "adam", "rmsprop"], arms=["none", "norm", "value"], early_stop=STOP, epochs=12
    )
    records = among(trials)
    stopped = [epoch for epoch in records.records["stopped_epoch"] if epoch]
    assert len(stopped) > 2 and len(set(stopped)) > 1 and all(records.records["test/loss"] > 0)


def test_a_looped_lane_that_stops_early_keeps_its_buffers():
    trials = trials_of((LINE, C("tests.toys:counts_batches", in_place=True)), early_stop=STOP, batch_size=8, epochs=12)
    slower = [replace(trial, optimizer=C("sgd", lr=1e-6)) for trial in trials]
    among([*trials, *slower])


def wild(trials: list[Trial], lr: float) -> list[Trial]:
    return [replace(trial, optimizer=C("sgd", lr=lr)) for trial in trials]


@pytest.mark.parametrize("stop", [None, STOP])
def test_lanes_that_diverge_are_left_out_at_the_next_check(stop):
    trials = trials_of(arms=["none", "value", "skip", "autoclip", "norm without head"], early_stop=stop, batch_size=4)
    lost = [trial for lr in (1e3, 1e7, 1e30) for trial in wild(trials[:4], lr)]
    records = among([*trials, *lost], Pruner(trials[2:]))
    assert (records.records["diverged"] == 1).sum() > 5


def test_lanes_that_diverge_are_left_out_within_an_epoch():
    train = Training(epochs=None, steps=60, loss=C("output"), save_weights=True, diverge_above=1e6)
    model = C("quadratic", start=[0.5, 2.0], dim=5, scatter=0.1, curvature=[1.0, 10.0])
    clips = [ARMS[arm] for arm in ("none", "norm", "value", "zclip", "skip", "norm after momentum")]
    trials = [Trial(None, model, C("sgd", lr=lr), train, clip, 1) for lr in (0.01, 1.0, 3.0, 1e9) for clip in clips]
    records = among(trials)
    assert {"finished", "diverged"} == set(records.records["status"])
    assert any("loss above" in str(cause) for cause in records.records["diverged_cause"])


def test_a_chunk_without_lanes_left_was_narrow_at_its_end():
    trials = trials_of()
    records = among(trials, lambda epoch, told: sorted(told)[: 1 + 2 * (epoch == 3)] if epoch < 4 else set(told))
    assert set(records.records["status"]) == {"pruned"}


def test_lane_steps_add_up_when_lanes_are_pruned():
    trials, told = trials_of(optimizers=["momentum", "adam"]), []
    engine.train(trials, progress=told.append, choose_pruned=Pruner(trials))
    assert sum(told) == len(trials) * EPOCHS * 3 and min(told) >= 0


# Optimizers of the user


@pytest.mark.parametrize("optimizer", ["Copies", "Downhill", "History"])
def test_a_users_optimizer_continues(optimizer):
    trials = trials_of(arms=["none", "norm", "skip"], seeds=range(4))
    trials = [replace(trial, optimizer=C(f"tests.toys:{optimizer}", lr=0.02)) for trial in trials]
    among(trials, Pruner(trials))


def test_an_optimizer_that_holds_views_of_its_weights_is_not_moved():
    trials = trials_of(arms=["none", "norm"], seeds=range(4))
    trials = [replace(trial, optimizer=C("tests.toys:Flat", lr=0.02)) for trial in trials]
    records = among(trials, Pruner(trials))
    assert set(records.records["status"]) == {"finished", "pruned"}


def test_lanes_of_an_optimizer_that_draws_random_numbers_for_all_stay_together():
    trials = trials_of(arms=["none", "norm"], seeds=range(4))
    trials = [replace(trial, optimizer=C("tests.toys:Jitters", lr=0.02)) for trial in trials]
    among(trials, Pruner(trials))


def test_the_oldest_workspaces_are_dropped_first(monkeypatch):
    monkeypatch.setitem(workspace_cache.MOST_BYTES, "cpu", 0)
    kept = WorkspaceCache()
    shapes = [WorkspaceShape.of(trials_of(seeds=range(count)), "cpu") for count in (1, 2, 3)]
    first, second, third = map(kept, shapes)
    assert kept(shapes[2]) is third and kept(shapes[1]) is second
    assert kept(shapes[0]) is not first
