"""Generated problems are what their formulas say, and published results on them come out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import optimize

from clipbench import datasets
from clipbench.core.trial import Component
from clipbench.datasets import DataProblem
from clipbench.plugins import registry
from tests.cli_helpers import invoke, train, write

C = Component.of
PARTS = {"split.val": 0.2, "split.test": 0.2, "split.seed": 0}
GAMMA = 1 / 24
ATOMS = np.array([[1, 0], [GAMMA, 5 * GAMMA], [GAMMA, -GAMMA]])
WEIGHTS = np.array([1 / 4, 1 / 4, 1 / 2])


def function(kind: str, name: str):
    return registry.find(kind, name).function


# Label noise


def test_long_servedio_is_six_narrow_clouds_with_flipped_training_labels():
    parts = function("data", "long_servedio")(samples=20000, test=20000, seed=1)
    assert {name: len(x) for name, (x, y) in parts.items()} == {"train": 20000, "val": 20000, "test": 20000}
    x, y = parts["test"]
    sides = 2 * y - 1
    distances = np.linalg.norm((sides * x)[:, None] - ATOMS, axis=2)
    np.testing.assert_allclose(np.bincount(distances.argmin(1)) / len(x), WEIGHTS, atol=0.015)
    np.testing.assert_allclose((sides * x - ATOMS[distances.argmin(1)]).std(0), 0.01, rtol=0.03)
    assert y.mean() == pytest.approx(0.5, abs=0.015)
    x, y = parts["train"]
    clear = np.abs(x[:, 0]) > 0.5
    assert (y[clear, 0] != (x[clear, 0] > 0)).mean() == pytest.approx(0.2, abs=0.02)


def population(loss: str, **options: float) -> np.ndarray:
    """The weights that a linear model ends with on the atoms themselves, a fifth of all labels flipped."""
    x = torch.tensor(np.concatenate([ATOMS, ATOMS]))
    weights = torch.tensor(np.concatenate([0.8 * WEIGHTS, 0.2 * WEIGHTS]))
    y = torch.tensor([[1.0]] * 3 + [[0.0]] * 3)
    each = function("loss", loss)

    def risk(w: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.tensor(w, requires_grad=True)
        total = sum(
            p * each(a @ w[:, None], b, **options) for p, a, b in zip(weights, x[:, None], y[:, None], strict=True)
        )
        total.backward()
        return float(total.detach()), w.grad.numpy()

    return optimize.minimize(risk, np.ones(2), jac=True, options={"gtol": 1e-10}).x


@pytest.mark.parametrize(
    "loss, options, expected",
    [
        ("logistic", {}, (1.5972, 3.1562)),
        ("bce", {}, (1.5972, 3.1562)),
        ("huberised", {"tau": 0.26}, (3.0435, 7.9862)),
        ("huberised", {"tau": 1 / (1 + np.e)}, (3.0080, 7.8033)),
    ],
)
def test_population_minimisers_on_the_six_atoms_are_those_of_the_papers(loss, options, expected):
    """Of the Huberised loss for tau = 0.26; sigmoid(-1) = 0.2689 gives a little less."""
    np.testing.assert_allclose(population(loss, **options), expected, atol=1e-3)


def test_menons_losses_meet_their_definitions():
    """Menon et al. 2020: the slope of the Huberised loss never passes tau; PHuber is linear in p below 1 / tau."""
    z = torch.linspace(-8, 8, 401, dtype=torch.float64, requires_grad=True)
    one = torch.ones_like(z)
    huber, partial = function("loss", "huberised"), function("loss", "partially_huberised")
    [slope] = torch.autograd.grad(huber(z, one, tau=0.3) * len(z), z)
    torch.testing.assert_close(slope, -torch.sigmoid(-z).clamp(max=0.3))
    p = torch.sigmoid(z)
    [slope] = torch.autograd.grad(partial(z, one, tau=1.5) * len(z), p, retain_graph=True, allow_unused=True)
    [slope] = torch.autograd.grad(partial(z, one, tau=1.5) * len(z), z)
    expected = -(1 / p).clamp(max=1.5) * p * (1 - p)
    torch.testing.assert_close(slope, expected.detach())
    scores = torch.stack([z, torch.zeros_like(z)], dim=1)
    torch.testing.assert_close(
        partial(scores, torch.zeros(len(z), dtype=torch.int64), tau=1.5), partial(z, one, tau=1.5)
    )
    assert float(partial(torch.tensor([-1e4]), torch.ones(1), tau=2.0)) == pytest.approx(np.log(2) + 1)


def test_label_noise_leads_convex_losses_astray_and_the_bounded_one_not(tmp_path):
    """Menon et al. 2020, figure 3, and Mizrahi et al. 2021: clean accuracy 0.53, 0.50 and 1.00."""
    losses = ["logistic", "huberised", {"name": "partially_huberised", "tau": 1 + np.exp(-1).item()}]
    options = {"epochs": 500, "batch_size": "full", "loss": losses, "evaluate_every": 500}
    line, descent = {"name": "linear", "bias": False}, {"name": "sgd", "lr": 20.0}
    data = {"name": "long_servedio", "seed": 2}
    train(
        write(tmp_path, data=data, model=line, train=options, optimizer=descent, clip="none", seeds=2),
        tmp_path / "results",
    )
    records = pd.read_parquet(tmp_path / "results" / "small" / "records")
    accuracy = records.groupby("train.loss")["test/accuracy"].mean()
    assert accuracy["partially_huberised"] == 1
    assert accuracy["logistic"] == pytest.approx(0.53, abs=0.05)
    assert accuracy["huberised"] == pytest.approx(0.50, abs=0.05)


def test_label_noise_flips_labels_of_the_training_part_alone():
    clean, noisy = (function("data", "label_noise")(flip=share) for share in (0.0, 0.25))
    assert [len(y) for _, y in noisy.values()] == [600, 200, 200]
    for name in clean:
        np.testing.assert_array_equal(clean[name][0], noisy[name][0])
        assert (clean[name][1] != noisy[name][1]).mean() == pytest.approx(0.25 if name == "train" else 0, abs=0.04)


@pytest.mark.parametrize(
    "law, options", [("normal", {}), ("student", {"df": 2.5}), ("weibull", {"shape": 0.5}), ("cauchy", {})]
)
def test_heavy_tails_are_in_the_training_targets_alone(law, options):
    make = function("data", "heavy_tails")
    clean, noisy = (make(law, scale=scale, samples=5000, **options) for scale in (0.0, 2.0))
    for name in ("val", "test"):
        np.testing.assert_array_equal(clean[name][1], noisy[name][1])
    xi = (noisy["train"][1] - clean["train"][1]) / 2
    drawn = registry.find("noise", law).function((5000, 1), torch.Generator().manual_seed(0), **options)
    np.testing.assert_allclose(xi, drawn[:3000], atol=1e-9)
    np.testing.assert_allclose(np.linalg.lstsq(*clean["test"], rcond=None)[1], 0, atol=1e-9)


def test_a_law_of_ones_own_and_an_unknown_one(tmp_path):
    (tmp_path / "laws.py").write_text("import torch\ndef ones(size, generator): return torch.ones(size)\n")
    own = datasets.load(C("heavy_tails", law="./laws.py:ones", folder=str(tmp_path), scale=3.0))
    clean = datasets.load(C("heavy_tails", scale=0.0))
    np.testing.assert_allclose(own.train[1] - clean.train[1], 3)
    said = invoke("run", write(tmp_path, data={"name": "heavy_tails", "law": "weibul"}), "--dry-run", "--no-mlflow")
    assert said.exit_code == 2 and "unknown noise 'weibul'. Did you mean `weibull`?" in said.stderr
    with pytest.raises(DataProblem, match="the law student has no option 'dff'; it has df"):
        datasets.load(C("heavy_tails", law="student", dff=3.0))


# Other shapes of targets


def test_rare_classes_are_as_rare_as_asked_for_in_every_part():
    loaded = datasets.load(C("imbalanced", classes=3, minority=0.05, **PARTS))
    for _, y in (loaded.train, loaded.val, loaded.test):
        np.testing.assert_allclose(np.bincount(y) / len(y), [0.9, 0.05, 0.05], atol=0.01)
    with pytest.raises(ValueError, match="minority must be at most 1 / classes"):
        function("data", "imbalanced")(classes=4, minority=0.5)


def test_spirals_wind_around_one_another():
    x, y = function("data", "spirals")(samples=3000, classes=3, turns=1.0, noise=0.0)
    angle, radius = np.arctan2(x[:, 1], x[:, 0]), np.linalg.norm(x, axis=1)
    np.testing.assert_allclose((angle / (2 * np.pi) - radius - y / 3 + 0.5) % 1, 0.5, atol=1e-9)
    assert np.bincount(y).tolist() == [1000] * 3 and radius.max() <= 1


def test_several_labels_are_learnt_and_judged_label_by_label(tmp_path):
    options = {"epochs": 20, "batch_size": 50}
    path = write(
        tmp_path, data="multilabel", train=options, clip="none", seeds=2, optimizer={"name": "adam", "lr": 0.01}
    )
    train(path, tmp_path / "results")
    records = pd.read_parquet(tmp_path / "results" / "small" / "records")
    assert set(records["train.loss"]) == {"bce"} and set(records["train.metrics"]) == {'["accuracy", "f1"]'}
    assert (records["test/accuracy"] > 0.8).all() and (records["test/f1"] > 0.6).all()
    loaded = datasets.load(C("multilabel", standardize=True, **PARTS))
    assert loaded.outputs == 5 and set(np.unique(loaded.train[1])) == {0.0, 1.0}


def test_several_real_targets_are_learnt(tmp_path):
    data = {"name": "make_regression", "targets": 3, "noise": 0.1}
    path = write(tmp_path, data=data, model="linear", train={"epochs": 20}, clip="none", seeds=2)
    train(path, tmp_path / "results")
    records = pd.read_parquet(tmp_path / "results" / "small" / "records")
    assert (records["test/r2"] > 0.95).all() and set(records["parameters"]) == {33}
