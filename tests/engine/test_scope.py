"""Rules on the parts of batches: shards, as on several workers, and single examples, as in DP-SGD."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.core.trial import Component, Trial
from clipbench.plugins import registry
from tests import oracle
from tests.engine.test_engine import ARMS, MODELS, OPTIMIZERS, assert_same_steps, steps_of, training, whole
from tests.plugins.test_models import MODELS as NETWORKS
from tests.thinning import one_of

C = Component.of
RULES = registry.catalogue("strategy")
FOUR = C("shards", n=4)
SEVEN = C("shards", n=7)  # does not divide 16, and the last batch of 36 has 4 examples
NORM = {"threshold": 0.3, "p": 2.0, "per": "model", "exclude": ()}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def in_scope(scope: object) -> list[Component]:
    """The arms that mean something for a part of a batch."""
    return [
        C(arm.name, **arm.as_dict(), scope=scope)
        for arm in ARMS.values()
        if RULES[arm.name].facts["on"] == "gradient"
        and arm.name != "none"
        and "after" not in arm.as_dict()
        and not (scope == "sample" and RULES[arm.name].facts["init"])
    ]


SCOPES = ("sample", FOUR, SEVEN)


def share_in_scope(scope: object) -> list[Component]:
    """Arms that together with those of the other scopes are all, each in one of the scopes that it can have."""
    number, all_arms = SCOPES.index(scope), in_scope(FOUR)
    turns = [place % 3 if not RULES[arm.name].facts["init"] else 1 + place % 2 for place, arm in enumerate(all_arms)]
    return [
        C(arm.name, **arm.as_dict() | {"scope": scope})
        for arm, turn in zip(all_arms, turns, strict=True)
        if turn == number
    ]


def trials_of(arms, model="mlp", optimizer="momentum", seeds=(3,), steps=7, dtype="float64", **changes):
    data, component = MODELS[model] if isinstance(model, str) else model
    if model == "linear":
        arms = [arm for arm in arms if not arm.as_dict()["exclude"]]
    train = replace(training(model, dtype, steps), **changes)
    return [Trial(data, component, OPTIMIZERS[optimizer], train, arm, seed) for seed in seeds for arm in arms]


def assert_as_the_loop(trials, tolerance=1e-9):
    records = engine.train(trials)
    loaded = datasets.load(trials[0].data)
    for trial in trials:
        steps = trial.train.steps
        assert_same_steps(records, trial, oracle.Loop(trial, loaded).train(steps), tolerance)
    return records


# The engine and the plain loop


@whole
@pytest.mark.parametrize("scope", SCOPES, ids=["sample", "four", "seven"])
def test_every_rule_on_microbatches_equals_the_plain_loop(scope, whole, assert_fastest):
    records = assert_as_the_loop(trials_of(in_scope(scope) if whole else share_in_scope(scope)))
    assert_fastest(records.records["engine"], records.records["engine_note"])


FEW = ("norm", "agc", "value", "skip", "drop", "norm without head", "tensor_norm p=inf")


def few(scope, **options):
    return [C(ARMS[name].name, **ARMS[name].as_dict(), scope=scope, **options) for name in FEW]


@pytest.mark.parametrize("model", one_of(3, MODELS))
def test_every_model_is_trained_by_microbatches(model):
    for scope in ("sample", FOUR):
        assert_as_the_loop(trials_of(few(scope), model, "adam", steps=4))


BATCHES = {
    "full": {"batch_size": None},
    "one": {"batch_size": 1},
    "dropped": {"drop_last": True, "batch_size": 25},
    "moving": {"schedule": C("cosine", final=0.2, warmup=1)},
}


@pytest.mark.parametrize("kind", one_of(2, BATCHES))
@pytest.mark.parametrize("scope", ["sample", SEVEN], ids=["sample", "seven"])
def test_batches_of_every_size_are_cut(scope, kind):
    if scope == "sample" or BATCHES[kind].get("batch_size") != 1:
        assert_as_the_loop(trials_of(few(scope, schedule=C("follow_lr"), warmup=2), steps=5, **BATCHES[kind]))


@pytest.mark.parametrize("model", ["looks_at_numbers", "branches"])
def test_models_that_cannot_be_stacked_are_looped_by_microbatches(model):
    setting = (C("tests.toys:line", examples=50, features=3, seed=4), C(f"tests.toys:{model}"))
    for scope in ("sample", SEVEN):
        records = assert_as_the_loop(trials_of(few(scope), setting, steps=5, batch_size=8)[:4])
        assert set(records.records["engine"]) == {"looped"}


@pytest.mark.parametrize(
    ("model", "scope"),
    [("mlp", "sample"), ("mlp", SEVEN), ("cnn", "sample"), pytest.param("cnn", SEVEN, marks=pytest.mark.slow)],
    ids=["mlp-sample", "mlp-seven", "cnn-sample", "cnn-seven"],
)
def test_a_trial_does_not_depend_on_its_neighbours(model, scope):
    arms = few(scope) + ([C("norm", **NORM, scope=scope, noise=1.0)] if scope == "sample" else [])
    trials = trials_of(arms, model, dtype="float32", seeds=(0, 1))
    together = engine.train(trials)
    for chosen in (trials[:1], trials[3:6], trials[6:10], [trials[7], trials[-1]]):
        alone = engine.train(chosen)
        for trial in chosen:
            for name, column in steps_of(alone, trial).items():
                np.testing.assert_array_equal(column, steps_of(together, trial)[name], err_msg=f"{trial.arm} {name}")


def test_unclipped_microbatches_average_to_the_gradient_of_the_batch():
    loose = NORM | {"threshold": 1e9}
    batch, shards, sample = (
        trials_of([C("norm", **loose, scope=s)], drop_last=True) for s in ("batch", SEVEN, "sample")
    )
    whole = engine.train(batch).steps
    for parts in (shards, sample):
        for name in ("train/loss", "grad_norm/pre", "grad_norm/post", "grad_max/pre"):
            np.testing.assert_allclose(engine.train(parts).steps[name], whole[name], rtol=1e-12)


@pytest.mark.parametrize("model", one_of(2, ["gru", "transformer", "resnet", "deep_mlp"]))
def test_networks_of_every_kind_are_trained_example_by_example(model, assert_fastest):
    arms = [C("norm", **NORM, scope="sample"), C("value", threshold=0.02, exclude=(), scope="sample")]
    loss = {"loss": C("cross_entropy"), "metrics": (C("accuracy"),), "batch_size": 8}
    records = assert_as_the_loop(trials_of(arms, NETWORKS[model], steps=3, **loss), 1e-8)
    assert_fastest(records.records["engine"], records.records["engine_note"])


@pytest.mark.parametrize("scope", ["sample", FOUR], ids=["sample", "four"])
def test_batches_of_streams_are_cut_too(scope):
    stream = (C("adding", length=6, **{"split.val": 20, "split.test": 20}), C("linear", bias=True))
    assert_as_the_loop(trials_of(few(scope), stream, steps=5, batch_size=6, metrics=()))


@pytest.mark.parametrize("model", ["with_dropout", "with_batch_norm", "counts_batches"])
def test_models_that_change_their_buffers_or_draw_are_trained_by_microbatches(model, assert_fastest):
    setting = (C("tests.toys:line", examples=50, features=3, seed=4), C(f"tests.toys:{model}"))
    arms = [C("norm", **NORM | {"threshold": c}, scope=C("shards", n=2)) for c in (0.1, 1e9)]
    records = assert_as_the_loop(trials_of(arms, setting, steps=6, batch_size=10, optimizer="sgd", metrics=()))
    assert_fastest(records.records["engine"], records.records["engine_note"])
    clipped = records.steps["clip/fired"].reshape(2, -1).mean(1)
    assert clipped[0] > 0 == clipped[1]


def test_noise_of_the_training_reaches_every_part_and_the_average_once():
    loose = NORM | {"threshold": 1e9}
    noise = {"noise": C("normal", scale=0.1), "drop_last": True}
    batch, shards, sample = (trials_of([C("norm", **loose, scope=s)], **noise) for s in ("batch", SEVEN, "sample"))
    whole = engine.train(batch).steps
    for parts in (shards, sample):
        np.testing.assert_allclose(engine.train(parts).steps["grad_norm/pre"], whole["grad_norm/pre"], rtol=1e-10)


# Refused microbatches


def test_parts_that_are_not_finite_are_left_out_by_rules_that_refuse():
    data = C("tests.toys:one_bad_example")
    arms = [C("skip_nonfinite", exclude=(), scope="sample"), C("norm", **NORM, scope="sample")]
    trials = trials_of(arms, (data, C("linear", bias=True)), steps=6, batch_size=5)
    records = engine.train(trials)
    status = dict(zip(records.records["id"], records.records["status"], strict=True))
    assert [status[trial.id] for trial in trials] == ["finished", "diverged"]
    steps = steps_of(records, trials[0])
    assert np.isfinite(steps["grad_norm/post"]).all() and (steps["clip/fired"] == steps["grad/nonfinite"]).all()
    assert 0 < steps["clip/fired"].sum() < 6


# Differential privacy


def test_noise_has_its_own_generator_and_a_multiple_of_the_threshold_as_deviation():
    arms = [C("norm", **NORM, scope="sample", noise=z) for z in (0.5, 1.0)]
    arms += [C("norm", **NORM, scope="sample"), C("norm", **NORM | {"threshold": None}, scope="sample", noise=1.0)]
    trials = trials_of([*arms, C("value", threshold=0.1, exclude=(), scope="sample", noise=0.3)], seeds=(3, 4), steps=6)
    assert_as_the_loop(trials)


def test_lanes_of_a_seed_share_the_noise_and_seeds_do_not():
    limits, noises = (0.25, 0.5), (0.0, 10.0)
    arms = [C("norm", **NORM | {"threshold": c}, scope="sample", noise=z) for z in noises for c in limits]
    trials = trials_of(arms, optimizer="sgd", seeds=(0, 1), steps=1, save_weights=True)
    weights = engine.train(trials).weights
    at = {(t.seed, t.threshold, t.clip["noise"]): weights[t.id] for t in trials}
    moved = {(seed, c): (at[seed, c, 10.0] - at[seed, c, 0.0]) / c for seed in (0, 1) for c in limits}
    for seed in (0, 1):
        np.testing.assert_allclose(moved[seed, 0.25], moved[seed, 0.5], rtol=1e-9)
    assert abs(np.corrcoef(moved[0, 0.5], moved[1, 0.5])[0, 1]) < 0.5
    # lr 0.02, noise 10, 16 examples: each weight's standard deviation is this
    assert np.std([*moved[0, 0.5], *moved[1, 0.5]]) == pytest.approx(0.02 * 10 / 16, rel=0.2)


@pytest.mark.filterwarnings("ignore:Full backward hook", "ignore:Secure RNG")
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_dp_sgd_is_opacus(noise):
    """Opacus's own optimizer and per-example gradients; torch's generator replaced by ours for the noise."""
    opacus = pytest.importorskip("opacus")
    [trial] = trials_of([C("norm", **NORM, scope="sample", noise=noise)], steps=8)
    records = engine.train([trial])
    loaded = datasets.load(trial.data)
    loop = oracle.Loop(trial, loaded)
    model = opacus.GradSampleModule(loop.model)
    generator = torch.Generator().manual_seed(2**31 + trial.seed)
    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, dampening=0.1, weight_decay=0.01),
        noise_multiplier=noise,
        max_grad_norm=0.3,
        expected_batch_size=16,
        generator=generator,
    )
    batches = loop._batches()
    for step in range(8):
        x, y = next(batches)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        assert steps_of(records, trial)["grad_norm/post"][step] == pytest.approx(float(norm), rel=1e-6)


def test_epsilon_equals_published_values():
    """The tutorial of TensorFlow Privacy on MNIST: 60000 images, batch 250, noise 1.3, 15 epochs, delta 1e-5."""
    from opacus.accountants.analysis import rdp

    from clipbench.engine.clipping.privacy import epsilon

    orders = np.arange(2, 64)
    spent = rdp.compute_rdp(q=250 / 60000, noise_multiplier=1.3, steps=15 * 240, orders=orders)
    published = min(spent + np.log(1e5) / (orders - 1))  # as it was worked out then
    assert published == pytest.approx(1.18, abs=0.005)
    ours = epsilon(1.3, 250 / 60000, 15 * 240, 1e-5)
    assert 0.9 < ours < published


def test_a_record_has_epsilon_where_it_is_known():
    base = {"scope": "sample", "noise": 1.1}
    arms = {
        "plain": C("norm", **NORM, **base),
        "strict": C("norm", **NORM, **base, delta=1e-9),
        "quiet": C("norm", **NORM, scope="sample"),
        "unbounded": C("value", threshold=0.1, exclude=(), **base),
        "per tensor": C("norm", **NORM | {"per": "tensor"}, **base),
        "without head": C("norm", **NORM | {"exclude": ("head",)}, **base),
    }
    trials = trials_of(list(arms.values()))
    records = engine.train(trials).records
    spent = dict(zip(records["id"], records["epsilon"], strict=True))
    found = {name: spent[trial.id] for name, trial in zip(arms, trials, strict=True)}
    assert 0 < found["plain"] < found["strict"]
    assert {found[name] for name in ("quiet", "unbounded", "per tensor", "without head")} == {None}
    assert "epsilon" not in engine.train(trials[2:3]).records


# Published fixed points: Chen, Wu, Hong 2020, arXiv:2006.15429; Koloskova et al. 2023, arXiv:2305.01588

CLIPPED = C("norm", threshold=1.0, p=2.0, per="model", exclude=(), scope="sample")


def settled(points, arm=CLIPPED, start=0.0, batch=None, lr=0.5, steps=150, seeds=1) -> float:
    """Where SGD on the mean of (x - a)^2 / 2 comes to."""
    data = C("tests.toys:points", points=tuple(points))
    train = replace(training("mlp", "float64", steps), batch_size=batch, metrics=(), save_weights=True)
    train = replace(train, loss=C("tests.toys:half_square"))
    model = C("tests.toys:one_number", start=start)
    trials = [Trial(data, model, C("sgd", lr=lr), train, arm, seed) for seed in range(seeds)]
    return float(np.mean(list(engine.train(trials).weights.values())))


BATCH = C("norm", threshold=1.0, p=2.0, per="model", exclude=())
# Of one number the norm is the absolute value: the same rule without the 1e-6 in its denominator.
EXACT = C("value", threshold=1.0, exclude=(), scope="sample")


def test_clipping_each_example_moves_the_optimum_and_clipping_the_batch_does_not():
    assert settled((-3.0, -3.0, 9.0)) == pytest.approx(-2.5, abs=1e-5)
    assert settled((-3.0, -3.0, 9.0), EXACT) == pytest.approx(-2.5, abs=1e-12)
    assert settled((-3.0, -3.0, 9.0), BATCH) == pytest.approx(1.0, abs=1e-12)
    assert settled((-3.0, -3.0, 9.0), start=-2.0, batch=1, lr=0.01, steps=600, seeds=48) == pytest.approx(
        -2.5, abs=0.02
    )


@pytest.mark.parametrize(("start", "end"), [(-5, -2), (-1.7, -1.7), (0, 0), (1.3, 1.3), (5, 2)])
def test_between_two_points_everything_is_stationary(start, end):
    assert settled((-3.0, 3.0), EXACT, start=start) == pytest.approx(end, abs=1e-6)
    assert settled((-3.0, 3.0), BATCH, start=start) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("c", "mean"), [(0.1, 1 / 30), (0.5, 1 / 6), (0.9, 0.25)])
def test_the_clipped_mean_of_a_coin_equals_the_published_value(c, mean):
    coin = (0.0, 0.0, 0.0, 1.0)
    for arm, expected in ((CLIPPED, mean), (BATCH, 0.25)):
        arm = C("norm", **arm.as_dict() | {"threshold": c})
        assert settled(coin, arm) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("p", "c"), [(0.25, 1.0), (0.1, 0.5)])
def test_the_gradient_at_the_fixed_point_of_two_points_is_the_published_one(p, c):
    """{0, a}, the second with probability p and a = 2c / (1 - p): sigma^2 / (4c)."""
    count = 20
    a = 2 * c / (1 - p)
    points = (0.0,) * round(count * (1 - p)) + (a,) * round(count * p)
    x = settled(points, C("norm", **CLIPPED.as_dict() | {"threshold": c}))
    assert abs(x - p * a) == pytest.approx(a * a * p * (1 - p) / (4 * c), abs=1e-6)


def test_unit_inputs_and_single_clipped_examples_are_the_huberised_logistic_loss():
    """Menon et al. 2020: batch 1, per-example clipping at tau = SGD on the loss that is linear beyond tau."""
    tau, train = 0.3, replace(training("mlp", "float64", 60), batch_size=1, metrics=())
    data, model = C("tests.toys:on_the_circle"), C("linear", bias=False)
    clipped = C("norm", threshold=tau, p=2.0, per="model", exclude=(), scope="sample")
    pairs = [(C("tests.toys:logistic"), clipped), (C("tests.toys:huberised", tau=tau), C("none"))]
    weights = [
        engine.train(
            [Trial(data, model, C("sgd", lr=0.5), replace(train, loss=loss, save_weights=True), arm, 1)]
        ).weights
        for loss, arm in pairs
    ]
    [ours], [theirs] = (list(w.values()) for w in weights)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
