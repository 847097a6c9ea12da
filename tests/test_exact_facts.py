"""Closed forms and identities that nobody here chose: what gradient clipping does where it can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clipbench import dataset, engine, registry
from clipbench.trial import Component, Records, Training, Trial
from tests import oracle

C = Component.of
TABLE = C("tests.toys:line", examples=60, features=20, seed=1)
MLP = C("mlp", hidden=[32], activation="tanh", bias=True)
UNREACHED = 1e9


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def norm(threshold: float | None) -> Component:
    return C("norm", threshold=threshold, p=2.0, per="model", exclude=())


def value(threshold: float) -> Component:
    return C("value", threshold=threshold, exclude=())


def objective(model: Component, lr: float, arms: list[Component], steps: int) -> tuple[list[Trial], Records]:
    """Descend on an objective without data under each arm."""
    train = Training(epochs=None, steps=steps, loss=C("output"), dtype="float64", save_weights=True)
    trials = [Trial(None, model, C("sgd", lr=lr), train, arm, seed=0) for arm in arms]
    return trials, engine.train(trials)


def mlp_trials(arms: list[Component], optimizers: list[Component], steps: int = 200) -> list[Trial]:
    train = Training(epochs=None, steps=steps, batch_size=16, loss=C("mse"), dtype="float64", save_weights=True)
    return [Trial(TABLE, MLP, optimizer, train, arm, seed=2) for arm in arms for optimizer in optimizers]


def series(records: Records, trial: Trial, name: str) -> np.ndarray:
    return records.steps[name][records.steps["id"] == trial.id]


def final(records: Records, trial: Trial, name: str) -> object:
    return dict(zip(records.records["id"], records.records[name], strict=True))[trial.id]


def weight(records: Records, trial: Trial) -> float:
    [x] = records.weights[trial.id]
    return float(x)


class TestClippingCuresExplosionAndNeverVanishing:
    """Pascanu et al. 2013, section 2.3: (w^T - 1)^2 / 2 with T = 50, lr 5e-4, 20000 steps."""

    thresholds = (10.0, 1.0, 0.1)

    def descend(self, start: float) -> tuple[list[Trial], Records]:
        arms = [C("none"), *map(norm, self.thresholds)]
        return objective(C("tests.toys:scalar_rnn", start=start, length=50), 5e-4, arms, 20_000)

    def test_unclipped_it_explodes_at_once_and_clipped_it_arrives(self):
        trials, records = self.descend(1.5)
        none, *clipped = trials
        assert final(records, none, "diverged_step") == 2
        assert final(records, none, "diverged_cause") == "loss"
        assert final(records, none, "status") == "diverged"
        assert len(series(records, none, "step")) == 2
        assert none.id not in records.weights
        jump = 1.5 - 5e-4 * series(records, none, "grad_norm/pre")[0]
        assert jump == pytest.approx(-6.8e15, rel=0.01)
        for trial, steps in zip(clipped, (100, 1000, 10_000), strict=True):
            assert series(records, trial, "clip/fired").sum() == steps
            assert series(records, trial, "clip/fired")[:steps].all()
            assert weight(records, trial) == pytest.approx(1.0, abs=1e-6)
            assert final(records, trial, "status") == "finished"

    def test_a_vanishing_gradient_is_not_helped(self):
        trials, records = self.descend(0.5)
        none = trials[0]
        for trial in trials:
            assert series(records, trial, "grad_norm/pre")[0] == pytest.approx(8.8818e-14, rel=1e-4)
            assert not series(records, trial, "clip/fired").any()
            assert weight(records, trial) == weight(records, none)
            np.testing.assert_array_equal(series(records, trial, "train/loss"), series(records, none, "train/loss"))
        assert weight(records, none) == pytest.approx(0.5, abs=1e-9)


class TestDeterministicToys:
    def test_clipped_descent_on_a_parabola_is_a_line_and_then_a_decay(self):
        trials, records = objective(C("tests.toys:power", start=10.0), 0.1, [norm(1.0)], 101)
        x = np.sqrt(2 * series(records, trials[0], "train/loss"))  # before each step
        np.testing.assert_allclose(x[:91], 10 - 0.1 * np.arange(91), atol=1e-5)
        np.testing.assert_allclose(x[90:], 0.9 ** np.arange(11), atol=1e-5)
        assert x[100] == pytest.approx(0.3486784401, abs=1e-5)
        assert series(records, trials[0], "clip/fired").sum() in (90, 91)  # x_90 is 1 but for the last bits

    def test_bounded_is_not_converged(self):
        """lr 2.5 > 2: clipping keeps it from diverging, in a cycle of two points for ever."""
        trials, records = objective(C("tests.toys:power", start=10.0), 2.5, [C("none"), norm(1.0)], 2000)
        assert final(records, trials[0], "status") == "diverged"
        assert final(records, trials[1], "status") == "finished"
        x = np.sqrt(2 * series(records, trials[1], "train/loss"))[-500:]
        assert x.max() < 2.5
        np.testing.assert_allclose(x[2:], x[:-2], atol=1e-4)
        np.testing.assert_allclose(x[1:] + x[:-1], 2.5, atol=1e-4)  # of opposite signs, 2.5 apart

    @pytest.mark.parametrize("start, status", [(2.2360, "finished"), (2.2361, "diverged")])
    def test_descent_on_a_quartic_converges_only_within_root_five(self, start, status):
        model = C("tests.toys:power", start=start, exponent=4, factor=1.0)
        trials, records = objective(model, 0.1, [C("none")], 3000)
        assert final(records, trials[0], "status") == status
        if status == "finished":
            assert abs(weight(records, trials[0])) < 0.1

    def test_clipped_descent_on_a_quartic_walks_in_from_anywhere(self):
        model = C("tests.toys:power", start=10.0, exponent=4, factor=1.0)
        trials, records = objective(model, 0.1, [norm(1.0), C("none")], 94)
        assert weight(records, trials[0]) == pytest.approx(0.6, abs=1e-5)
        assert final(records, trials[1], "status") == "diverged"

    def test_clipping_before_momentum_bounds_the_step_by_ten_thresholds(self):
        """A constant gradient far above c: the step tends to lr c / (1 - 0.9)."""
        train = Training(epochs=None, steps=300, loss=C("output"), dtype="float64")
        sgd = C("sgd", lr=0.01, momentum=0.9)
        model = C("tests.toys:slope", start=0.0, steepness=1000.0)
        records = engine.train([Trial(None, model, sgd, train, norm(2.0), seed=0)])
        steps = -np.diff(records.steps["train/loss"]) / 1000
        assert steps[0] == pytest.approx(0.01 * 2, rel=1e-6)
        assert steps[-1] == pytest.approx(0.01 * 2 / (1 - 0.9), rel=1e-6)


class TestIdentities:
    """A network 20-32-1 with tanh, float64, 200 steps."""

    def unreached(self) -> list[Component]:
        """Every rule that can do nothing, at a threshold that nothing reaches."""
        rules = [plugin for plugin in registry.catalogue("strategy").values() if plugin.facts["loose"] is not None]
        arms = []
        for plugin in rules:
            options = {name: option.default for name, option in plugin.options.items()}
            loose = min(plugin.facts["loose"], UNREACHED)
            per = {"per": plugin.facts["per"]} if plugin.facts["per"] in ("model", "tensor", "unit") else {}
            arms.append(C(plugin.name, **{**options, **per, "threshold": loose, "exclude": ()}))
        return arms

    @pytest.mark.parametrize("optimizer", [C("sgd", lr=0.05, momentum=0.9), C("adam", lr=0.01)], ids=["sgd", "adam"])
    def test_a_threshold_never_reached_is_no_clipping_bit_for_bit(self, optimizer):
        arms = self.unreached()
        assert len(arms) >= 8
        trials = mlp_trials([C("none"), *arms], [optimizer])
        records = engine.train(trials)
        for trial in trials[1:]:
            np.testing.assert_array_equal(records.weights[trial.id], records.weights[trials[0].id], err_msg=trial.arm)
            for name in ("train/loss", "grad_norm/pre", "grad_norm/post", "clip/cosine"):
                ours, theirs = series(records, trial, name), series(records, trials[0], name)
                np.testing.assert_allclose(ours, theirs, rtol=1e-14, err_msg=f"{trial.arm} {name}")
            assert series(records, trial, "clip/fired").sum() == 0, trial.arm
            assert series(records, trial, "clip/fraction").sum() == 0, trial.arm

    @pytest.mark.parametrize("k", [2.0, 10.0])
    def test_where_sgd_is_always_clipped_only_lr_times_threshold_counts(self, k):
        lr, c = 0.5, 1e-3
        [one] = mlp_trials([norm(c)], [C("sgd", lr=lr)])
        [other] = mlp_trials([norm(c / k)], [C("sgd", lr=k * lr)])
        records = engine.train([one, other])
        assert series(records, one, "clip/fired").all() and series(records, other, "clip/fired").all()
        np.testing.assert_allclose(records.weights[one.id], records.weights[other.id], rtol=0, atol=1e-14)
        assert not np.array_equal(records.weights[one.id], initial_weights(one))

    def test_where_adam_is_always_clipped_the_threshold_does_not_count_until_eps_does(self):
        arms = [norm(1e-2), norm(1e-4), norm(1e-8)]
        exact = mlp_trials(arms, [C("adam", lr=1e-3, eps=0.0)])
        records = engine.train(exact)
        for trial in exact:
            assert series(records, trial, "clip/fired").all()
            np.testing.assert_allclose(records.weights[trial.id], records.weights[exact[0].id], rtol=0, atol=1e-9)
        usual = mlp_trials(arms, [C("adam", lr=1e-3, eps=1e-8)])
        records = engine.train(usual)
        difference = records.weights[usual[2].id] - records.weights[usual[0].id]
        assert np.abs(difference).max() > 1e-2

    def test_value_clipping_towards_zero_is_sign_descent(self):
        step = 1e-3
        [trial] = mlp_trials([value(1e-12)], [C("sgd", lr=step / 1e-12)])
        records = engine.train([trial])
        assert series(records, trial, "clip/fired").all()
        loop = oracle.Loop(trial, dataset.load(TABLE))
        batches = loop._batches()
        losses = []
        for _ in range(trial.train.steps):
            loop.optimizer.zero_grad()
            loss = loop._loss(next(batches))
            loss.backward()
            losses.append(float(loss.detach()))
            with torch.no_grad():
                for parameter in loop.model.parameters():
                    parameter -= step * parameter.grad.sign()
        np.testing.assert_allclose(series(records, trial, "train/loss"), losses, rtol=1e-9)
        expected = torch.cat([p.detach().flatten() for p in loop.model.parameters()])
        np.testing.assert_allclose(records.weights[trial.id], expected, atol=1e-12)


def initial_weights(trial: Trial) -> np.ndarray:
    model = oracle.initial_model(trial, dataset.load(TABLE)).double()
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def test_an_objective_reports_its_value_and_no_data():
    trials, records = objective(C("tests.toys:power", start=3.0), 0.1, [C("none")], 5)
    assert final(records, trials[0], "train/loss") == pytest.approx((3 * 0.9**5) ** 2 / 2)
    assert final(records, trials[0], "parameters") == 1
    assert not [name for name in records.records if name.startswith(("test/", "val/", "best_val/"))]
    assert math.isclose(series(records, trials[0], "grad_norm/pre")[0], 3.0)
