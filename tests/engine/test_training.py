"""How trials are trained: noise, penalties and objectives, beside the plain loop and beside what is known of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from clipbench import datasets, engine
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine import lane_group
from clipbench.engine.inputs.gradient_noise import draw, generator
from clipbench.planning.build import prepare
from clipbench.plugins import registry
from tests import oracle
from tests.engine.test_engine import ARMS, MODELS, OPTIMIZERS, assert_same_steps, steps_of, training, trials_of
from tests.thinning import one_of

C = Component.of
NOISES = {
    "normal": C("normal", scale=0.5),
    "uniform": C("uniform", scale=0.5),
    "laplace": C("laplace", scale=0.5),
    "student": C("student", df=3.0, scale=0.5),
    "cauchy": C("cauchy", scale=0.01),
    "weibull": C("weibull", shape=0.2, scale=1.0),
    "burr": C("burr", c=1.0, d=2.3, scale=1.0),
    "pareto": C("pareto", alpha=1.5, scale=0.1),
    "levy": C("levy", alpha=1.5, scale=0.05),
}
OBJECTIVES = {
    "quadratic": C("quadratic", start=[0.5, 2.0], dim=5, scatter=0.1, curvature=[1.0, 10.0]),
    "power": C("power", start=[1.0, -2.0], dim=None, exponent=3.0),
    "scalar_rnn": C("scalar_rnn", start=1.05, steps=20),
    "rosenbrock": C("rosenbrock", start=[-1.2, 1.0, 0.5]),
}
SOME = ["none", "norm", "tensor_norm", "value", "skip", "agc"]
MANY_DRAWS = (400, 500)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def assert_as_the_loop(trials: list[Trial], tolerance: float = 1e-9) -> Records:
    records = engine.train(trials)
    data = datasets.load(trials[0].data) if trials[0].data else None
    for trial in trials:
        assert_same_steps(records, trial, oracle.Loop(trial, data).train(trial.train.steps or 0), tolerance)
    return records


# Noise


def law(name: str) -> np.ndarray:
    return draw(NOISES[name], MANY_DRAWS, generator(4)).numpy().ravel()


def test_every_law_and_objective_of_the_catalogue_is_compared_with_the_loop():
    assert set(NOISES) == set(registry.catalogue("noise"))
    without_data = {name for name, plugin in registry.catalogue("model").items() if not plugin.given}
    assert set(OBJECTIVES) == without_data


DISTRIBUTIONS = {
    "normal": stats.norm(scale=0.5),
    "uniform": stats.uniform(-0.5 * math.sqrt(3), math.sqrt(3)),
    "laplace": stats.laplace(scale=0.5 / math.sqrt(2)),
    "student": stats.t(3, scale=0.5),
    "cauchy": stats.cauchy(scale=0.01),
    "weibull": stats.weibull_min(0.2, loc=-120 / math.sqrt(3614400), scale=1 / math.sqrt(3614400)),
    "burr": stats.burr12(1, 2.3, loc=-1 / 1.3 / stats.burr12(1, 2.3).std(), scale=1 / stats.burr12(1, 2.3).std()),
    "pareto": stats.pareto(1.5, loc=-0.3, scale=0.1),
    "levy": stats.levy_stable(1.5, 0.0, scale=0.05),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_law_is_distributed_as_it_says(name):
    drawn = law(name)[:: 100 if name == "levy" else 1]  # whose distribution function scipy integrates for each number
    assert stats.kstest(drawn, DISTRIBUTIONS[name].cdf).pvalue > 0.01


@pytest.mark.parametrize("name", ["normal", "uniform", "laplace", "weibull", "burr"])
def test_laws_with_a_variance_to_choose_have_mean_zero_and_the_scale_squared_as_variance(name):
    exact = DISTRIBUTIONS[name]
    scale = NOISES[name]["scale"]
    assert exact.mean() == pytest.approx(0, abs=1e-9)
    assert exact.var() == pytest.approx(scale**2)


def test_levy_of_two_is_gaussian_and_of_one_is_cauchy():
    two = draw(C("levy", alpha=2.0, scale=1.0), MANY_DRAWS, generator(4)).numpy().ravel()
    one = draw(C("levy", alpha=1.0, scale=1.0), MANY_DRAWS, generator(4)).numpy().ravel()
    assert stats.kstest(two, stats.norm(scale=math.sqrt(2)).cdf).pvalue > 0.01
    assert stats.kstest(one, stats.cauchy.cdf).pvalue > 0.01


@pytest.mark.parametrize("name", one_of(3, NOISES))
def test_noise_is_added_to_the_gradient_as_in_the_loop(name):
    train = replace(training("mlp", "float64", 30), noise=NOISES[name])
    assert_as_the_loop(trials_of("mlp", "momentum", SOME, train, seeds=(0, 1)))


@pytest.mark.parametrize("model", MODELS)
def test_noise_reaches_every_parameter_of_every_model(model):
    train = replace(training(model, "float64", 12), noise=NOISES["normal"])
    assert_as_the_loop(trials_of(model, "sgd", ["none", "norm"], train, seeds=(2,)))


def test_noise_continues_from_block_to_block():
    train = Training(epochs=None, steps=70, loss=C("output"), noise=NOISES["normal"], dtype="float64")
    wide = C("quadratic", start=1.0, dim=3000, curvature=1.0)  # 21 steps a block
    assert_as_the_loop([Trial(None, wide, OPTIMIZERS["sgd"], train, ARMS["none"], seed) for seed in (0, 5)])


def test_noise_does_not_change_batches_and_lanes_of_a_seed_share_it():
    quiet = trials_of("mlp", "sgd", ["none", "norm off"], training("mlp", "float64", 3))
    noisy = [replace(trial, train=replace(trial.train, noise=NOISES["normal"])) for trial in quiet]
    (silent, _), (loud, beside) = ([steps_of(engine.train(t), one) for one in t] for t in (quiet, noisy))
    assert silent["train/loss"][0] == loud["train/loss"][0]
    assert silent["grad_norm/pre"][0] != loud["grad_norm/pre"][0]
    np.testing.assert_array_equal(loud["train/loss"], beside["train/loss"])


def test_noise_of_a_trial_does_not_depend_on_its_neighbours():
    train = replace(training("mlp", "float32", 10), noise=NOISES["weibull"])
    trials = trials_of("mlp", "momentum", SOME, train, seeds=(0, 1))
    together = engine.train(trials)
    for chosen in (trials[:2], trials[4:8]):
        alone = engine.train(chosen)
        for trial in chosen:
            np.testing.assert_array_equal(
                steps_of(alone, trial)["train/loss"], steps_of(together, trial)["train/loss"], err_msg=trial.arm
            )


@pytest.mark.parametrize("scope", ["sample", {"shards": 4}])
def test_noise_is_added_to_the_gradient_of_every_part(scope, tmp_path):
    """As a term of the objective would be: clipped nowhere, parts come to what the batch comes to."""
    parts = f"{{name: norm, threshold: [1.0e9, 0.05], scope: {scope if scope == 'sample' else '{shards: 4}'}}}"
    text = f"""
        data: {{name: make_regression, samples: 60, features: 6, informative: 3, noise: 1.0}}
        model: {{name: mlp, hidden: [4]}}
        optimizer: {{name: sgd, lr: 0.02}}
        train: {{steps: 9, batch_size: 12, dtype: float64, noise: {{name: normal, scale: 0.5}}}}
        clip: [none, {parts}]
        seeds: 2
    """
    path = tmp_path / "parts.yaml"
    path.write_text(text)
    runs = [(list(cohort.trials), engine.train(cohort.trials)) for cohort in prepare(str(path)).cohorts]
    trials = [(trial, records) for mine, records in runs for trial in mine]
    norms = {(t.arm.split("@")[-1], t.seed): steps_of(r, t)["grad_norm/pre"] for t, r in trials}
    for seed in (0, 1):
        np.testing.assert_allclose(norms["1000000000.0", seed], norms["none", seed], rtol=1e-9)
        assert norms["0.05", seed][0] == pytest.approx(norms["none", seed][0])
        after = next(steps_of(r, t)["grad_norm/post"] for t, r in trials if (t.threshold, t.seed) == (0.05, seed))
        assert (after <= 0.05 + 1e-9).all()


def test_noise_is_added_on_the_looped_path_too():
    data = C("tests.toys:line", examples=30)
    looped = C("tests.toys:looks_at_numbers")
    train = replace(training("mlp", "float64", 10), noise=NOISES["normal"], batch_size=8)
    trials = [Trial(data, looped, OPTIMIZERS["sgd"], train, ARMS[arm], 1) for arm in ("none", "norm")]
    assert set(assert_as_the_loop(trials).records["engine"]) == {"looped"}


# Early stop

STOPPING = {
    "val/loss": C("val/loss", patience=2, min_delta=0.0),
    "a margin": C("val/loss", patience=2, min_delta=0.02),
    "never": C("val/loss", patience=50, min_delta=0.0),
}


def stopping(early_stop: Component, epochs: int = 12, model: str = "mlp") -> list[Trial]:
    train = replace(training(model, "float64", 1), epochs=epochs, steps=None, early_stop=early_stop)
    wild = replace(OPTIMIZERS["sgd"], options=C("x", **OPTIMIZERS["sgd"].as_dict() | {"lr": 0.3}).options)
    data, component = MODELS[model]
    return [
        Trial(data, component, wild, train, ARMS[arm], seed) for seed in (0, 1) for arm in ("none", "norm", "value")
    ]


@pytest.mark.parametrize("rule", STOPPING)
def test_trials_stop_where_the_plain_loop_stops(rule):
    trials = stopping(STOPPING[rule])
    data = datasets.load(trials[0].data)
    val, test = ([torch.as_tensor(array) for array in part] for part in (data.val, data.test))
    epoch_steps = -(-len(data.train[0]) // 16)
    records = engine.train(trials)
    rows = {id_: row for row, id_ in enumerate(records.records["id"])}
    lasted = []
    for trial in trials:
        loop = oracle.Loop(trial, data)
        lasted.append(loop.train_until_stopped(12, epoch_steps, val))
        assert records.records["stopped_epoch"][rows[trial.id]] == (lasted[-1] if lasted[-1] < 12 else None)
        assert records.records["status"][rows[trial.id]] == "finished"
        assert records.records["test/loss"][rows[trial.id]] == pytest.approx(loop.evaluate(*test), rel=1e-9)
        assert_same_steps(records, trial, loop.run, 1e-9)
        assert list(records.epochs["epoch"][records.epochs["id"] == trial.id]) == list(range(1, lasted[-1] + 1))
    assert (len(set(lasted)) == 1) == (rule == "never")


def test_a_chunk_ends_when_every_lane_has_stopped_or_diverged():
    told = []
    trials = stopping(C("val/loss", patience=1, min_delta=100.0), epochs=1000)[:3]
    diverging = replace(trials[0], optimizer=C("sgd", lr=1e200))
    records = engine.train([*trials, diverging], progress=told.append)
    assert sorted(map(str, records.records["stopped_epoch"])) == ["2", "2", "2", "None"]
    assert list(records.records["diverged"]).count(1) == 1
    assert sum(told) == 4 * 1000 * 3
    assert len(told) < 20


def test_steps_after_an_early_stop_are_ignored():
    train = Training(
        epochs=6,
        loss=C("output"),
        dtype="float64",
        epoch_steps=10,
        early_stop=C("train/loss", patience=1, min_delta=0.0),
    )
    trial = Trial(None, C("quadratic", start=1.0, dim=None, curvature=1.0), C("sgd", lr=1e30), train, ARMS["norm"], 0)
    grows = replace(trial, optimizer=C("sgd", lr=3.0), clip=ARMS["none"], train=replace(train, epochs=100))
    records = engine.train([grows])  # to infinity, some epochs after it has stopped
    assert (records.records["status"][0], records.records["stopped_epoch"][0]) == ("finished", 2)
    assert len(records.steps["step"]) == 20 and len(records.epochs["epoch"]) == 2
    assert records.records["weight_norm"][0] == pytest.approx(2.0**20)


def test_looped_models_keep_the_buffers_they_stopped_with():
    data = C("tests.toys:line", examples=30)
    train = replace(training("mlp", "float64", 1), steps=None, epochs=20, batch_size=8, early_stop=STOPPING["a margin"])
    model = C("tests.toys:counts_batches", in_place=True)
    trial = Trial(data, model, OPTIMIZERS["sgd"], train, ARMS["none"], 1)
    slower = replace(trial, optimizer=C("sgd", lr=1e-6))
    loaded = datasets.load(data)
    records = engine.train([trial, slower])
    for row, id_ in enumerate(records.records["id"]):
        loop = oracle.Loop(trial if id_ == trial.id else slower, loaded)
        epochs = loop.train_until_stopped(20, 3, [torch.as_tensor(array) for array in loaded.val])
        assert records.records["stopped_epoch"][row] == epochs
        assert records.records["test/loss"][row] == pytest.approx(
            loop.evaluate(*(torch.as_tensor(array) for array in loaded.test))
        )


# Penalties


@pytest.mark.parametrize("penalty", [{"l1": 0.01}, {"l2": 0.02}, {"l1": 0.003, "l2": 0.004}])
@pytest.mark.parametrize("model", one_of(2, MODELS))
def test_penalties_are_part_of_the_training_loss(model, penalty):
    train = replace(training(model, "float64", 15), **penalty)
    assert_as_the_loop(trials_of(model, "momentum", ["none", "norm", "value"], train))


def test_penalties_are_not_part_of_measures_in_eval_mode():
    train = replace(training("linear", "float64", 1), batch_size=None)
    trial = Trial(*MODELS["linear"], C("sgd", lr=0.0), train, ARMS["none"], 0)
    penalized = replace(trial, train=replace(train, l2=10.0))
    plain, heavy = (engine.train([one]) for one in (trial, penalized))
    assert plain.records["train/loss"][0] == pytest.approx(heavy.records["train/loss"][0])
    assert heavy.steps["train/loss"][0] > plain.steps["train/loss"][0] + 0.1


# Parameters that do not influence the loss


@pytest.mark.parametrize("extra", [{}, {"l2": 0.01}, {"noise": NOISES["normal"]}])
@pytest.mark.parametrize("optimizer", one_of(2, ["momentum", "adam", "adamw"]))
def test_parameters_without_influence_on_the_loss_are_treated_as_in_torch(optimizer, extra):
    data = C("tests.toys:line", examples=30)
    decaying = OPTIMIZERS[optimizer].as_dict() | {"weight_decay": 0.1}
    train = replace(training("mlp", "float64", 10), batch_size=8, save_weights=True, **extra)
    trials = [
        Trial(data, C("tests.toys:with_idle_layer"), C(OPTIMIZERS[optimizer].name, **decaying), train, ARMS[arm], 1)
        for arm in ("none", "norm", "value", "skip")
    ]
    assert_as_the_loop(trials)
    records = engine.train(trials)
    loaded = datasets.load(data)
    for trial in trials:
        loop = oracle.Loop(trial, loaded)
        loop.train(10)
        expected = torch.cat([parameter.detach().flatten() for parameter in loop.model.parameters()])
        np.testing.assert_allclose(records.weights[trial.id], expected, rtol=1e-9, err_msg=trial.arm)


# Objectives


@pytest.mark.parametrize("optimizer", one_of(2, ["sgd", "momentum", "adam"]))
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_descend_as_in_the_loop(name, optimizer):
    train = Training(epochs=None, steps=30, loss=C("output"), dtype="float64")
    slow = replace(OPTIMIZERS[optimizer], options=C("x", **OPTIMIZERS[optimizer].as_dict() | {"lr": 1e-3}).options)
    assert_as_the_loop([Trial(None, OBJECTIVES[name], slow, train, ARMS[arm], 0) for arm in SOME])


def test_seeds_start_at_the_start_or_scattered_around_it(tmp_path):
    text = """
        model: {{name: quadratic, start: [1, 3], dim: 3, scatter: {scatter}}}
        optimizer: {{name: sgd, lr: 0}}
        train: {{loss: output, steps: 1, dtype: float64, save_weights: true}}
        clip: none
        seeds: 50
    """
    _, exact = from_yaml(tmp_path, text.format(scatter=0))
    _, around = from_yaml(tmp_path, text.format(scatter=0.5))
    assert {tuple(weights) for weights in exact.weights.values()} == {(1.0, 2.0, 3.0)}
    away = np.stack(list(around.weights.values())) - (1.0, 2.0, 3.0)
    assert stats.kstest(away.ravel(), stats.norm(scale=0.5).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    "start, dim, said", [([], None, "at least one coordinate"), ([1.0, 2.0, 3.0], 5, "expected 5 numbers")]
)
def test_an_invalid_start_is_refused(start, dim, said):
    with pytest.raises(ValueError, match=said):
        registry.find("model", "quadratic").function(start=start, dim=dim)


def from_yaml(folder, text: str) -> tuple[list[Trial], Records]:
    path = folder / "paper.yaml"
    path.write_text(text)
    [cohort] = prepare(str(path)).cohorts
    return list(cohort.trials), engine.train(cohort.trials)


def of_arms(trials: list[Trial], records: Records, column: str) -> dict[str, list[float]]:
    found = dict(zip(records.records["id"], records.records[column], strict=True))
    arms: dict[str, list[float]] = {}
    for trial in trials:
        arms.setdefault(trial.arm, []).append(found[trial.id])
    return arms


def test_clipping_cures_explosion(tmp_path):
    """Pascanu et al. 2013, section 2.3."""
    text = """
        model: {name: scalar_rnn, start: 1.5, steps: 50}
        optimizer: {name: sgd, lr: 5.0e-4}
        train: {loss: output, steps: 11000, dtype: float64}
        clip: [none, {name: norm, threshold: [10, 1, 0.1]}]
        seeds: 1
    """
    trials, records = from_yaml(tmp_path, text)
    assert of_arms(trials, records, "diverged_step")["none"] == [2]
    assert of_arms(trials, records, "weight_norm") == {
        "none": [None],
        **{f"norm@{c}": [pytest.approx(1.0, abs=1e-6)] for c in (10.0, 1.0, 0.1)},
    }
    shares = of_arms(trials, records, "clip/fired_share")
    fired = {arm: round(share * 11000) for arm, (share,) in shares.items() if arm != "none"}
    assert fired == {"norm@10.0": 100, "norm@1.0": 1000, "norm@0.1": 10000}


def test_clipping_does_not_cure_vanishing(tmp_path):
    """Pascanu et al. 2013, section 2.3."""
    text = """
        model: {name: scalar_rnn, start: 0.5, steps: 50}
        optimizer: {name: sgd, lr: 5.0e-4}
        train: {loss: output, steps: 1000, dtype: float64}
        clip: [none, {name: norm, threshold: [10, 1, 0.1]}]
        seeds: 1
    """
    trials, records = from_yaml(tmp_path, text)
    norms = records.steps["grad_norm/pre"]
    np.testing.assert_allclose(norms, 8.8818e-14, rtol=1e-4)
    assert len({loss for (loss,) in of_arms(trials, records, "train/loss").values()}) == 1
    assert set(records.records["clip/fired_share"]) == {0.0}
    assert [*records.records["weight_norm"]] == pytest.approx([0.5] * 4)


def test_a_clipped_bowl_is_walked_down_and_then_slid(tmp_path):
    text = """
        model: {name: quadratic, start: 10}
        optimizer: {name: sgd, lr: 0.1}
        train: {loss: output, steps: 100, dtype: float64}
        clip: {name: norm, threshold: 1}
        seeds: 1
        report: {baseline: norm}
    """
    trials, records = from_yaml(tmp_path, text)
    assert records.records["weight_norm"][0] == pytest.approx(0.3486784401, rel=1e-5)
    losses = steps_of(records, trials[0])["train/loss"]
    np.testing.assert_allclose(np.sqrt(2 * losses[:90]), 10 - 0.1 * np.arange(90), rtol=1e-5)


def test_bounded_is_not_converged(tmp_path):
    text = """
        model: {name: quadratic, start: 10.3}
        optimizer: {name: sgd, lr: 2.5}
        train: {loss: output, steps: 400, dtype: float64}
        clip: [none, {name: norm, threshold: 1}]
        seeds: 1
    """
    trials, records = from_yaml(tmp_path, text)
    clipped = np.sqrt(2 * steps_of(records, trials[1])["train/loss"][-4:])
    np.testing.assert_allclose(clipped[2:], clipped[:2], rtol=1e-5)  # of norm's 1e-6 beside n
    assert clipped[0] + clipped[1] == pytest.approx(2.5)  # x and x - 2.5, on both sides of 0
    assert of_arms(trials, records, "train/loss")["none"] == [None] or records.records["train/loss"][0] > 1e100


def test_a_steep_power_converges_only_from_near_or_clipped(tmp_path):
    text = """
        model: {name: power, start: [[2.2], [2.3], [10]], exponent: 4}
        optimizer: {name: sgd, lr: 0.1}
        train: {loss: output, steps: 94, dtype: float64}
        clip: [none, {name: norm, threshold: 1}]
        seeds: 1
    """
    path = tmp_path / "power.yaml"
    path.write_text(text)
    near, far, farther = (engine.train(cohort.trials).records for cohort in prepare(str(path)).cohorts)
    assert near["weight_norm"][0] < 0.5 < math.sqrt(5)
    assert far["diverged"][0] == farther["diverged"][0] == 1
    assert farther["weight_norm"][1] == pytest.approx(0.6, rel=1e-4)


HEAVY = """
    model: {{name: quadratic, start: [0, 0.99], dim: 100}}
    optimizer: {{name: sgd, lr: 0.001}}
    train: {{loss: output, steps: {steps}, dtype: float64, noise: {law}}}
    clip: [none, {{name: norm, threshold: 100}}]
    seeds: {seeds}
"""


def heavy(folder, law: str, steps: int, seeds: int) -> tuple[list[Trial], Records]:
    return from_yaml(folder, HEAVY.format(steps=steps, law=law, seeds=seeds))


def second_halves(trials: list[Trial], records: Records, arm: str) -> np.ndarray:
    losses = [steps_of(records, trial)["train/loss"] for trial in trials if trial.arm == arm]
    return np.concatenate([column[len(column) // 2 :] for column in losses])


def test_light_tails_hover_where_theory_says_whether_clipped_or_not(tmp_path):
    """Gorbunov et al. 2020: n lr / (2 (2 - lr)) = 0.0250."""
    trials, records = heavy(tmp_path, "normal", 12_000, 2)
    tails = of_arms(trials, records, "train/loss_tail")
    assert np.mean(tails["none"]) == pytest.approx(100 * 0.001 / (2 * (2 - 0.001)), rel=0.1)
    assert tails["norm@100.0"] == tails["none"]
    assert set(of_arms(trials, records, "clip/fired_share")["norm@100.0"]) == {0.0}


def test_heavy_tails_stray_far_unless_they_are_clipped(tmp_path):
    trials, records = heavy(tmp_path, "{name: weibull, shape: 0.2}", 12_000, 2)
    far = of_arms(trials, records, "train/loss_tail_p99")
    assert np.mean(far["none"]) > 2 * np.mean(far["norm@100.0"])
    assert np.mean(far["norm@100.0"]) < 0.05
    with_noise = second_halves(trials, records, "norm@100.0")
    assert np.mean(of_arms(trials, records, "train/loss_tail")["norm@100.0"]) == pytest.approx(with_noise.mean())


@pytest.mark.slow
def test_heavy_tails_have_the_published_quantiles(tmp_path):
    """Gorbunov et al. 2020, figure of the toy problem: 99 % quantiles 0.088 unclipped, 0.031 clipped."""
    trials, records = heavy(tmp_path, "normal", 100_000, 4)
    assert second_halves(trials, records, "none").mean() == pytest.approx(0.0250, abs=0.0005)
    trials, records = heavy(tmp_path, "{name: weibull, shape: 0.2}", 100_000, 10)
    assert np.quantile(second_halves(trials, records, "none"), 0.99) == pytest.approx(0.088, rel=0.35)
    assert np.quantile(second_halves(trials, records, "norm@100.0"), 0.99) == pytest.approx(0.031, rel=0.15)


CAUCHY = """
    model: {{name: quadratic, start: 0}}
    optimizer: {{name: sgd, lr: {lr}}}
    train: {{loss: output, steps: {steps}, dtype: float64, noise: cauchy}}
    clip: [none, {{name: norm, threshold: 1}}]
    seeds: {seeds}
"""


def assert_cauchy(folder, lr: float, steps: int, seeds: int, tolerance: float) -> None:
    """Unclipped the median of |x| is 1 whatever the learning rate; clipped the variance is (2 / pi) lr."""
    trials, records = from_yaml(folder, CAUCHY.format(lr=lr, steps=steps, seeds=seeds))
    halves = {arm: np.sqrt(2 * second_halves(trials, records, arm)) for arm in ("none", "norm@1.0")}
    assert np.median(halves["none"]) == pytest.approx(1.0, rel=tolerance)
    assert np.square(halves["norm@1.0"]).mean() == pytest.approx(2 / math.pi * lr, rel=tolerance)


@pytest.mark.parametrize("lr", [0.1, 0.05])
def test_cauchy_noise_is_tamed_by_clipping_alone(tmp_path, lr):
    assert_cauchy(tmp_path, lr, 6000, 8, 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("lr", [0.1, 0.01, 0.001])
def test_cauchy_noise_has_the_known_median_and_variance(tmp_path, lr):
    assert_cauchy(tmp_path, lr, 50_000, 24, 0.1)


# Targets and limits without data


def test_an_objective_reaches_its_target_in_an_epoch_of_its_own_length(tmp_path):
    text = """
        model: {name: quadratic, start: 10}
        optimizer: {name: sgd, lr: 0.1}
        train: {loss: output, steps: 100, epoch_steps: 10, target: {train/loss: 0.5}, dtype: float64}
        clip: [none, {name: norm, threshold: 1}, {name: norm, threshold: 0.01}]
        seeds: 1
    """
    trials, records = from_yaml(tmp_path, text)
    losses = [steps_of(records, trial)["train/loss"].reshape(10, 10).mean(1) for trial in trials]
    expected = [next((epoch for epoch, mean in enumerate(means, 1) if mean <= 0.5), None) for means in losses]
    assert of_arms(trials, records, "epochs_to_target") == {
        arm: [epochs] for arm, epochs in zip(("none", "norm@1.0", "norm@0.01"), expected, strict=True)
    }
    assert expected[0] and expected[1] and expected[0] < expected[1] and expected[2] is None
    assert list(records.epochs["epoch"]) == 3 * list(range(1, 11))


def test_a_stream_reaches_its_target_and_passes_its_limit_as_the_loop_does():
    stream = C("adding", length=8)
    train = Training(
        *(3, None, 16),
        loss=C("mse"),
        dtype="float64",
        epoch_steps=7,
        target=("val/loss", 0.5),
        noise=NOISES["normal"],
        schedule=C("cosine", final=0.0, warmup=3),
        diverge_above=3.0,
    )
    trials = [Trial(stream, C("linear", bias=True), C("sgd", lr=lr), train, ARMS["norm"], 0) for lr in (0.05, 30.0)]
    records = engine.train(trials)
    calm, wild = (steps_of(records, trial)["train/loss"] for trial in trials)
    loops = [
        oracle.Loop(replace(t, train=replace(train, steps=21, epochs=None)), datasets.load(stream)) for t in trials
    ]
    np.testing.assert_allclose(calm, loops[0].train(21).column("loss"), rtol=1e-9)
    assert len(calm) == 21 and wild[-1] > 3.0 and (wild[:-1] <= 3.0).all()
    np.testing.assert_allclose(wild, loops[1].train(21).column("loss")[: len(wild)], rtol=1e-9)
    found = dict(zip(records.records["id"], records.records["diverged_cause"], strict=True))
    assert [found[trial.id] for trial in trials] == [None, "loss above 3"]
    val = records.epochs["val/loss"][records.epochs["id"] == trials[0].id]
    reached = next((epoch for epoch, loss in enumerate(val, 1) if loss <= 0.5), None)
    assert records.records["epochs_to_target"][list(records.records["id"]).index(trials[0].id)] == reached


def test_a_short_training_is_timed_within_its_steps(monkeypatch):
    """A schedule need not have a factor after the last step."""
    asked = []
    monkeypatch.setattr(lane_group, "factor_of_step", lambda schedule, steps: lambda step: asked.append(step) or 1.0)
    train = replace(training("mlp", "float32", 5), schedule=C("linear", final=0.0, warmup=0))
    assert engine.seconds_per_lane_step(trials_of("mlp", "sgd", ["none", "norm"], train), "cpu", 4) > 0
    assert set(asked) == set(range(5))
