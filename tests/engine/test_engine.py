"""The cohort equals the plain loop, for every rule, optimizer and model; and lanes do not know of one another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine.chunk_training import ChunkTraining
from clipbench.engine.clipping.lane_order import order
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.engine.schedule_factor import factor_of_step
from clipbench.plugins import registry
from tests import oracle
from tests.thinning import one_of

C = Component.of
TABLE = C("make_regression", samples=60, features=6, informative=3, noise=1.0, seed=0, standardize=True)
IMAGES = C("digits", limit=90)
MODELS = {
    "linear": (TABLE, C("linear", bias=True)),
    "linear_net": (TABLE, C("linear_net", hidden=[5, 4], std=0.3, bias=True)),
    "mlp": (TABLE, C("mlp", hidden=[8], activation="tanh", bias=True)),
    "cnn": (
        IMAGES,
        C("cnn", channels=[3, 4], hidden=8, kernel=3, padding="same", pool="max", pool_after="each"),
    ),
}
ARMS = {
    "none": C("none"),
    "norm": C("norm", threshold=0.3, p=2.0, per="model", exclude=()),
    "norm p=1": C("norm", threshold=2.0, p=1.0, per="model", exclude=()),
    "norm p=inf": C("norm", threshold=0.1, p=math.inf, per="model", exclude=()),
    "norm per tensor": C("norm", threshold=0.2, p=2.0, per="tensor", exclude=()),
    "norm per unit p=1": C("norm", threshold=0.2, p=1.0, per="unit", exclude=()),
    "norm without head": C("norm", threshold=0.1, p=2.0, per="model", exclude=("head",)),
    "norm off": C("norm", threshold=None, p=2.0, per="model", exclude=()),
    "tensor_norm": C("tensor_norm", threshold=0.1, p=2.0, per="tensor", exclude=()),
    "tensor_norm p=inf": C("tensor_norm", threshold=0.05, p=math.inf, per="tensor", exclude=()),
    "agc": C("agc", threshold=0.05, eps=1e-3, per="unit", exclude=()),
    "agc without head": C("agc", threshold=0.05, eps=1e-3, per="unit", exclude=("head",)),
    "agc per tensor": C("agc", threshold=0.05, eps=1e-3, per="tensor", exclude=()),
    "agc p=1": C("agc", threshold=0.02, eps=1e-3, p=1.0, per="unit", exclude=()),
    "agc per column p=inf": C("agc", threshold=0.2, eps=1e-3, p=math.inf, per="column", exclude=()),
    "norm per column": C("norm", threshold=0.1, p=2.0, per="column", exclude=()),
    "zclip per column": C("zclip", threshold=0.5, alpha=0.9, warmup=4, max_norm=1.0, per="column", exclude=()),
    "agc per model": C("agc", threshold=0.05, eps=1e-3, per="model", exclude=()),
    "normalize": C("normalize", threshold=0.5, per="model", exclude=()),
    "normalize per unit": C("normalize", threshold=0.1, per="unit", exclude=()),
    "value": C("value", threshold=0.02, exclude=()),
    "value without head": C("value", threshold=0.02, exclude=("head",)),
    "zero": C("zero", threshold=0.05, exclude=()),
    "one_sided": C("one_sided", threshold=0.02, exclude=()),
    "sign_step": C("sign_step", threshold=0.01, exclude=()),
    "relative": C("relative", threshold=0.3, exclude=()),
    "value from below": C("value", lower=-0.02, upper=None, exclude=()),
    "value of two ends": C("value", threshold=0.05, lower=-0.02, upper=0.01, exclude=()),
    "rms": C("rms", threshold=0.01, per="tensor", exclude=()),
    "rms per unit without head": C("rms", threshold=0.01, per="unit", exclude=("head",)),
    "rms per model": C("rms", threshold=0.01, per="model", exclude=()),
    "soft_norm": C("soft_norm", threshold=0.5, per="model", exclude=()),
    "soft_norm per tensor": C("soft_norm", threshold=0.2, per="tensor", exclude=()),
    "tanh": C("tanh", threshold=0.05, exclude=()),
    "sign": C("sign", exclude=()),
    "centralize": C("centralize", exclude=()),
    "centralize without head": C("centralize", exclude=("head",)),
    "skip_nonfinite": C("skip_nonfinite", exclude=()),
    "autoclip": C("autoclip", threshold=20.0, window=1000, per="model", exclude=()),
    "autoclip per tensor": C("autoclip", threshold=33.0, window=6, per="tensor", exclude=()),
    "zclip": C("zclip", threshold=0.5, alpha=0.9, warmup=4, max_norm=math.inf, per="model", exclude=()),
    "zclip without head": C("zclip", threshold=0.5, alpha=0.9, warmup=4, max_norm=1.0, per="unit", exclude=("head",)),
    "adagc": C("adagc", threshold=1.05, beta=0.9, warmup=5, max_norm=0.4, per="tensor", exclude=()),
    "adagc per model": C("adagc", threshold=1.02, beta=0.9, warmup=5, max_norm=0.4, per="model", exclude=()),
    "norm_growth": C("norm_growth", threshold=1.01, per="tensor", exclude=()),
    "norm_growth per model": C("norm_growth", threshold=1.01, per="model", exclude=()),
    "mean_plus_k_std": C("mean_plus_k_std", threshold=0.5, window=8, warmup=4, per="model", exclude=()),
    "mean_plus_k_std per unit": C("mean_plus_k_std", threshold=0.5, window=8, warmup=4, per="unit", exclude=()),
    "ema_norm": C("ema_norm", threshold=1.05, beta=0.9, per="tensor", exclude=()),
    "skip_sigma": C("skip_sigma", threshold=0.5, window=8, warmup=4, patience=3, exclude=()),
    "skip": C("skip", threshold=0.6, exclude=()),
    "drop": C("drop", threshold=0.6, exclude=()),
    "weight_clamp": C("weight_clamp", threshold=0.3, exclude=()),
    "weight_clamp without head": C("weight_clamp", threshold=0.3, exclude=("head",)),
    "max_norm": C("max_norm", threshold=0.4, eps=1e-7, per="unit", exclude=()),
    "max_norm per column": C("max_norm", threshold=0.4, eps=1e-7, per="column", exclude=()),
    "max_norm per tensor": C("max_norm", threshold=0.5, eps=1e-7, per="tensor", exclude=()),
    "halve": C("halve", threshold=0.1, exclude=()),
    "norm after momentum": C("norm", threshold=0.3, p=2.0, per="model", exclude=(), after="momentum"),
    "norm off after momentum": C("norm", threshold=None, p=2.0, per="model", exclude=(), after="momentum"),
}
RULES = registry.catalogue("strategy")
# Rules without jumps: two runs that differ in the last bits stay together. The last bits alone also say how many small
# elements `tanh` changes, and whether weights that `max_norm` left at its threshold are over it; and what a rule
# remembers keeps them, until they say whether it fired.
JUMPING = ("zero", "sign_step", "sign", "tanh", "skip", "drop", "halve", "max_norm")
CONTINUOUS = [
    name
    for name in ARMS
    if name.split()[0] not in JUMPING and not registry.find("strategy", ARMS[name].name).facts["init"]
]
OPTIMIZERS = {
    "sgd": C("sgd", lr=0.02),
    "momentum": C("sgd", lr=0.02, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "nesterov": C("sgd", lr=0.02, momentum=0.9, nesterov=True),
    "adam": C("adam", lr=0.01, weight_decay=0.01),
    "amsgrad": C("adam", lr=0.01, amsgrad=True),
    "adamw": C("adamw", lr=0.01),
    "adamax": C("adamax", lr=0.01),
    "nadam": C("nadam", lr=0.01),
    "radam": C("radam", lr=0.01),
    "adagrad": C("adagrad", lr=0.05),
    "adadelta": C("adadelta", lr=1.0),
    "rmsprop": C("rmsprop", lr=0.003, momentum=0.5, centered=True, eps=1e-3),
    "rprop": C("rprop", lr=0.01),
    "asgd": C("asgd", lr=0.05),
}
SCHEDULES = {
    "constant": C("constant", warmup=5),
    "linear": C("linear", final=0.1, warmup=0),
    "cosine": C("cosine", final=0.0, warmup=4),
    "step": C("step", every=7, gamma=0.5, warmup=0),
    "exponential": C("exponential", final=0.05, warmup=3),
    "power": C("power", exponent=0.5, scale=2.0, warmup=0),
}
# Signs of gradients near zero decide whole steps of Rprop: the last bits of float32 do not stay small.
JUMPY = ("rprop",)


# The full product of rules, optimizers and models is slow. The fast part holds every pair of a rule and one of two
# models, and of an optimizer and such a model: each optimizer takes its share of the rules, another one with each model.
whole = pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["share", "whole"])


def share(arms: list[str], model: str, optimizer: str, optimizers: list[str]) -> list[str]:
    """The rules that an optimizer is compared with in the fast tests."""
    first = (optimizers.index(optimizer) + list(MODELS).index(model)) % len(optimizers)
    return arms[first :: len(optimizers)]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def trials_of(
    model: str, optimizer: str, arms: list[str], train: Training, seeds: tuple[int, ...] = (3,)
) -> list[Trial]:
    data, component = MODELS[model]
    if model == "linear":  # it is nothing but a head
        arms = [arm for arm in arms if "without head" not in arm]
    if model == "cnn":  # clamped to one value, weights make pixels tie in a pool, and the last bits choose among them
        arms = [arm for arm in arms if not arm.startswith("weight_clamp")]
    return [Trial(data, component, OPTIMIZERS[optimizer], train, ARMS[arm], seed) for seed in seeds for arm in arms]


def training(model: str, dtype: str, steps: int) -> Training:
    loss, metric = ("cross_entropy", "accuracy") if model == "cnn" else ("mse", "r2")
    return Training(epochs=None, steps=steps, batch_size=16, loss=C(loss), metrics=(C(metric),), dtype=dtype)


def steps_of(records, trial: Trial) -> dict[str, np.ndarray]:
    mine = records.steps["id"] == trial.id
    return {name: column[mine] for name, column in records.steps.items()}


def assert_same_steps(records, trial: Trial, expected: oracle.Run, tolerance: float) -> None:
    steps = steps_of(records, trial)
    pairs = {
        "train/loss": "loss",
        "grad_norm/pre": "pre",
        "grad_norm/post": "post",
        "grad_max/pre": "maximum",
        "clip/fired": "fired",
        "clip/fraction": "fraction",
        "clip/cosine": "cosine",
    }
    for column, name in pairs.items():
        np.testing.assert_allclose(
            steps[column],
            expected.column(name),
            rtol=tolerance,
            atol=tolerance,
            err_msg=f"{trial.arm}: {column}",
        )


# torch keeps NAdam's `mu_product` and ASGD's `eta` in float32, whatever the type of the parameters.
IN_FLOAT32 = ("nadam", "asgd")


@whole
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", one_of(3, MODELS))
def test_cohort_equals_the_plain_loop_in_float64(model, optimizer, whole):
    steps = 20 if model == "cnn" else 50  # the plain loop takes its time
    arms = list(ARMS) if whole else share(list(ARMS), model, optimizer, list(OPTIMIZERS))
    trials = trials_of(model, optimizer, arms, training(model, "float64", steps))
    records = engine.train(trials)
    data = datasets.load(trials[0].data)
    for trial in trials:
        tolerance = 1e-7 if optimizer in IN_FLOAT32 else 1e-9
        assert_same_steps(records, trial, oracle.Loop(trial, data).train(steps), tolerance)


SMOOTH = [name for name in OPTIMIZERS if name not in JUMPY]


@whole
@pytest.mark.parametrize("optimizer", one_of(2, SMOOTH))
@pytest.mark.parametrize("model", MODELS)
def test_cohort_stays_with_the_plain_loop_in_float32(model, optimizer, whole):
    arms = CONTINUOUS if whole else ["none", *share(CONTINUOUS, model, optimizer, SMOOTH)]
    trials = trials_of(model, optimizer, list(dict.fromkeys(arms)), training(model, "float32", 20))
    records = engine.train(trials)
    data = datasets.load(trials[0].data)
    for trial in trials:
        assert_same_steps(records, trial, oracle.Loop(trial, data).train(20), 1e-4)


class Shared(ChunkTraining):
    """A cohort beside plain loops that take their weights from it before every step."""

    def attach(self, loops: list[oracle.Loop]) -> None:
        self.loops = loops

    def _take_steps(self, size: int, steps: int, alive: Sequence[int]) -> None:
        assert steps == 1
        for lane, loop in enumerate(self.loops):
            with torch.no_grad():
                for name, parameter in loop.model.named_parameters():
                    parameter.copy_(self.workspace.params[name][lane])
            loop.step(self._source.read(0, self.workspace.seeds.numbers[lane], size))
        super()._take_steps(size, steps, alive)


SLOW_PAIRS = {("cnn", "adam"), ("linear_net", "adam"), ("linear_net", "momentum"), ("mlp", "momentum")}


@whole
@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        pytest.param(*pair, marks=pytest.mark.slow if pair in SLOW_PAIRS else ())
        for pair in itertools.product(MODELS, ["momentum", "adam"])
    ],
)
def test_every_float32_step_equals_the_plain_loops_from_the_same_weights(model, optimizer, whole):
    arms = list(ARMS) if whole else share(list(ARMS), model, optimizer, ["momentum", "adam"])
    trials = order(trials_of(model, optimizer, arms, training(model, "float32", 20)))
    data = datasets.load(trials[0].data)
    cohort = Shared(trials, Workspace(WorkspaceShape.of(trials, "cpu"), data, slots=1))
    cohort.attach([oracle.Loop(trial, data) for trial in trials])
    outcome = cohort.run(lambda done: None)
    for lane, loop in enumerate(cohort.loops):
        for row, name in enumerate(("loss", "pre", "post", "maximum")):
            np.testing.assert_allclose(
                outcome.steps[:, row, lane],
                loop.run.column(name),
                rtol=1e-5,
                atol=1e-6,
                err_msg=f"{loop.trial.arm}: {name}",
            )


LATE = {
    name: C(arm.name, **arm.as_dict(), after="momentum")
    for name, arm in ARMS.items()
    if "after" not in arm.as_dict()
    and arm.name != "none"
    and RULES[arm.name].facts["per"] != "step"
    and RULES[arm.name].facts["on"] == "gradient"
}


@whole
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_after_momentum_every_rule_acts_on_the_update(optimizer, whole):
    data, model = MODELS["mlp"]
    train = training("mlp", "float64", 20)
    arms = list(LATE) if whole else share(list(LATE), "mlp", optimizer, ["sgd", "momentum", "adam"])
    trials = [Trial(data, model, OPTIMIZERS[optimizer], train, LATE[arm], 3) for arm in arms]
    records = engine.train(trials)
    loaded = datasets.load(data)
    for trial in trials:
        assert_same_steps(records, trial, oracle.Loop(trial, loaded).train(20), 1e-9)


MOVES = {
    "warmup": {"warmup": 6},
    "down": {"schedule": C("linear", final=0.2, warmup=0)},
    "warmup and down": {"warmup": 3, "schedule": C("linear", final=0.5, warmup=0)},
    "follow": {"schedule": C("follow_lr")},
    "against": {"schedule": C("against_lr")},
}


QUICK_MOVES = ("warmup and down", "against")


@pytest.mark.parametrize(
    "move", [pytest.param(move, marks=() if move in QUICK_MOVES else pytest.mark.slow) for move in MOVES]
)
def test_a_threshold_that_moves_is_the_loops(move):
    data, model = MODELS["mlp"]
    train = replace(training("mlp", "float64", 16), schedule=C("cosine", final=0.1, warmup=2))
    arms = [
        C(arm.name, **MOVES[move] | arm.as_dict())
        for arm in ARMS.values()
        if "threshold" in RULES[arm.name].options and "threshold" in arm.as_dict()
    ]
    trials = [Trial(data, model, OPTIMIZERS["momentum"], train, arm, 3) for arm in arms]
    records = engine.train(trials)
    loaded = datasets.load(data)
    for trial in trials:
        assert_same_steps(records, trial, oracle.Loop(trial, loaded).train(16), 1e-9)


def test_every_rule_and_optimizer_of_the_catalogue_is_compared_with_the_loop():
    assert {arm.name for arm in ARMS.values()} == set(registry.catalogue("strategy"))
    assert {optimizer.name for optimizer in OPTIMIZERS.values()} == set(registry.catalogue("optimizer"))
    assert set(SCHEDULES) == set(registry.catalogue("schedule"))
    for model in MODELS:
        shares = [arm for optimizer in OPTIMIZERS for arm in share(list(ARMS), model, optimizer, list(OPTIMIZERS))]
        assert sorted(shares) == sorted(ARMS)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rates_follow_their_schedule_as_torchs_schedulers_do(schedule):
    train = replace(training("mlp", "float64", 20), schedule=SCHEDULES[schedule])
    trials = [trial for name in OPTIMIZERS for trial in trials_of("mlp", name, ["norm"], train)]
    trials += trials_of("mlp", "adam", ["skip"], train)  # who skips a step skips no rate
    records = engine.train(trials)
    data = datasets.load(trials[0].data)
    for trial in trials:
        tolerance = 1e-7 if trial.optimizer.name in IN_FLOAT32 else 1e-9
        assert_same_steps(records, trial, oracle.Loop(trial, data).train(20), tolerance)


def test_a_factor_is_a_pure_function_of_the_step():
    half = C("linear", final=0.0, warmup=4)
    assert [factor_of_step(half, 8)(step) for step in (0, 3, 4, 6)] == pytest.approx([0.2, 0.8, 1.0, 0.5])
    assert factor_of_step(None, 8)(3) == 1.0


def test_arms_of_a_seed_share_initial_weights_and_batches():
    trials = trials_of("mlp", "sgd", ["none", "norm", "value"], training("mlp", "float32", 12), seeds=(0, 1))
    records = engine.train(trials)
    first = {}
    for trial in trials:
        first.setdefault(trial.seed, set()).add(float(steps_of(records, trial)["train/loss"][0]))
    assert all(len(losses) == 1 for losses in first.values())
    assert first[0] != first[1]


def test_a_seed_draws_the_batches_that_the_loop_draws():
    trials = trials_of("mlp", "sgd", ["none"], training("mlp", "float64", 30), seeds=(0, 1, 2))
    records = engine.train(trials)
    data = datasets.load(trials[0].data)
    for trial in trials:
        assert_same_steps(records, trial, oracle.Loop(trial, data).train(30), 1e-12)


@whole
@pytest.mark.parametrize("model", MODELS)
def test_a_trial_does_not_depend_on_its_neighbours(model, whole):
    arms = list(ARMS) if whole else list(ARMS)[list(MODELS).index(model) :: len(MODELS)]
    trials = trials_of(model, "momentum", arms, training(model, "float32", 15), seeds=(0, 1))
    together = engine.train(trials)
    for chosen in (trials[:1], trials[5:7], trials[3:10], [trials[4], trials[-3]], trials[7:19]):
        alone = engine.train(chosen)
        for trial in chosen:
            for name, column in steps_of(alone, trial).items():
                np.testing.assert_array_equal(column, steps_of(together, trial)[name], err_msg=f"{trial.arm} {name}")


def test_a_diverged_lane_leaves_all_others_as_they_were():
    wild = C("sgd", lr=1e6)
    calm = trials_of("mlp", "sgd", ["none", "norm", "value", "skip"], training("mlp", "float32", 40))
    diverging = [Trial(t.data, t.model, wild, t.train, ARMS["none"], t.seed) for t in calm[:1]]
    records, alone = engine.train([*calm, *diverging]), engine.train(calm)
    rows = dict(zip(records.records["id"], range(len(calm) + 1), strict=True))
    lost = rows[diverging[0].id]
    assert records.records["status"][lost] == "diverged"
    assert records.records["diverged_step"][lost] == len(steps_of(records, diverging[0])["step"])
    assert records.records["diverged_cause"][lost] in ("loss", "gradient", "weights")
    for trial in calm:
        assert records.records["status"][rows[trial.id]] == "finished"
        for name, column in steps_of(alone, trial).items():
            np.testing.assert_array_equal(column, steps_of(records, trial)[name])
