"""Closed forms and identities: what gradient clipping does where the result can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial
from clipbench.plugins import registry
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
    """Pascanu et al. 2013, section 2.3: (w^T - 1)^2 / 2 with T = 50, lr 5e-4."""

    thresholds = (10.0, 1.0, 0.1)

    def descend(self, start: float, steps: int) -> tuple[list[Trial], Records]:
        arms = [C("none"), *map(norm, self.thresholds)]
        return objective(C("tests.toys:scalar_rnn", start=start, length=50), 5e-4, arms, steps)

    def test_unclipped_it_explodes_at_once_and_clipped_it_arrives(self):
        trials, records = self.descend(1.5, 20_000)
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
        trials, records = self.descend(0.5, 5000)
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

    def test_clipped_descent_on_a_quartic_converges_from_every_start(self):
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

    @pytest.mark.parametrize("optimizer", [C("sgd", lr=0.005, momentum=0.9), C("adam", lr=0.01)], ids=["sgd", "adam"])
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
        loop = oracle.Loop(trial, datasets.load(TABLE))
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
    model = oracle.initial_model(trial, datasets.load(TABLE)).double()
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def test_an_objective_reports_its_value_and_no_data():
    trials, records = objective(C("tests.toys:power", start=3.0), 0.1, [C("none")], 5)
    assert final(records, trials[0], "train/loss") == pytest.approx((3 * 0.9**5) ** 2 / 2)
    assert final(records, trials[0], "parameters") == 1
    assert not [name for name in records.records if name.startswith(("test/", "val/", "best_val/"))]
    assert math.isclose(series(records, trials[0], "grad_norm/pre")[0], 3.0)


class TestWhenAndWhyTrainingDiverges:
    """A calm bowl whose gradient, and then its loss, is spoilt at step 4 of 9."""

    def spoil(self, how: str, arms: list[Component]) -> tuple[list[Trial], Records]:
        return objective(C("tests.toys:explodes_at", step=4, how=how), 0.1, arms, 9)

    def test_the_step_is_counted_from_one_and_the_cause_is_named(self):
        for how in ("inf", "nan"):
            trials, records = self.spoil(how, [C("none"), norm(1.0), value(0.5)])
            for trial in trials:
                assert final(records, trial, "diverged_step") == 4
                assert final(records, trial, "diverged_cause") == "loss"
                assert final(records, trial, "diverged") == 1
                assert len(series(records, trial, "step")) == 4
                assert np.isfinite(series(records, trial, "train/loss")[:3]).all()
                assert list(series(records, trial, "grad/nonfinite")) == [0, 0, 0, 1]
                assert "train/loss" not in records.records

    def test_a_gradient_alone_can_be_the_cause(self):
        """sqrt at 0: the loss is 0, its gradient infinite."""
        trials, records = objective(C("tests.toys:power", start=0.0, exponent=0.5, factor=1.0), 0.1, [C("none")], 3)
        assert final(records, trials[0], "diverged_step") == 1
        assert final(records, trials[0], "diverged_cause") == "gradient"

    def test_weights_alone_can_be_the_cause(self):
        trials, records = objective(C("tests.toys:slope", start=0.0, steepness=1e300), 1e100, [C("none")], 5)
        assert final(records, trials[0], "diverged_step") == 1
        assert final(records, trials[0], "diverged_cause") == "weights"
        assert np.isfinite(series(records, trials[0], "grad_norm/pre")).all()

    def test_who_refuses_a_bad_step_goes_on_as_if_it_had_not_been(self):
        arms = [C("skip", threshold=100.0, exclude=()), C("drop", threshold=100.0, exclude=())]
        for how in ("inf", "nan"):
            trials, records = self.spoil(how, arms)
            for trial in trials:
                assert final(records, trial, "status") == "finished", trial.arm
                assert list(series(records, trial, "clip/fired")) == [0, 0, 0, 1, 0, 0, 0, 0, 0]
                assert series(records, trial, "grad_norm/post")[3] == 0
                assert series(records, trial, "clip/cosine")[3] == 0
                np.testing.assert_allclose(records.weights[trial.id], 0.9**8)

    def test_a_loss_over_the_limit_counts_where_one_is_set(self):
        """x grows by 1.1 a step from 1: its x^2 / 2 passes 2 at step 9, when x is 2.14."""
        model = C("tests.toys:power", start=1.0, exponent=2, factor=-0.5)
        free = Training(epochs=None, steps=20, loss=C("output"), dtype="float64")
        limit = Training(**{**vars(free), "diverge_above": 2.0})
        uphill = Training(**{**vars(free), "diverge_above": 1e-9})
        for train, factor, step in ((free, 0.5, None), (limit, 0.5, 9), (uphill, -0.5, None)):
            model = C("tests.toys:power", start=1.0, exponent=2, factor=factor)
            lr = -0.1 if factor > 0 else 0.1
            trial = Trial(None, model, C("tests.toys:Downhill", lr=lr), train, C("none"), 0)
            records = engine.train([trial])
            assert final(records, trial, "diverged_step") == step
            assert final(records, trial, "diverged_cause") == ("loss above 2" if step else None)
            assert len(series(records, trial, "step")) == (step or 20)

    def test_a_lane_that_diverges_in_its_last_step_has_diverged(self):
        trials, records = objective(C("tests.toys:explodes_at", step=9, how="nan"), 0.1, [C("none")], 9)
        assert final(records, trials[0], "diverged_step") == 9

    def test_epochs_are_those_before_divergence(self):
        table = C("tests.toys:line", examples=50)
        train = Training(epochs=30, batch_size=10, loss=C("mse"), dtype="float64")
        data = [Trial(table, C("linear", bias=True), C("sgd", lr=lr), train, C("none"), 0) for lr in (0.01, 1e30)]
        records = engine.train(data)
        calm, wild = data
        assert (records.epochs["id"] == calm.id).sum() == 30
        step = final(records, wild, "diverged_step")
        assert (records.epochs["id"] == wild.id).sum() == (step - 1) // 3
        assert final(records, wild, "status") == "diverged"


class TestHowLongAndHowOften:
    """30 training examples of 50."""

    table = C("tests.toys:line", examples=50)

    def run(self, model: str = "linear", seeds: tuple[int, ...] = (0,), **train: object) -> tuple[list[Trial], Records]:
        options = {"loss": C("mse"), "metrics": (C("mse"), C("r2")), "dtype": "float64", **train}
        made = Training(**options)
        trials = [Trial(self.table, C(model, bias=True), C("sgd", lr=0.05), made, C("none"), s) for s in seeds]
        return trials, engine.train(trials)

    @pytest.mark.parametrize(
        "train, steps, epochs",
        [
            ({"epochs": 4, "batch_size": 10}, 12, 4),
            ({"epochs": 4, "batch_size": 8}, 16, 4),  # the last batch has 6
            ({"epochs": 4, "batch_size": 8, "drop_last": True}, 12, 4),
            ({"epochs": 4, "batch_size": 1}, 120, 4),
            ({"epochs": 4, "batch_size": 30}, 4, 4),
            ({"epochs": 4, "batch_size": 31}, 4, 4),
            ({"epochs": 4, "batch_size": None}, 4, 4),
            ({"epochs": None, "steps": 1, "batch_size": 8}, 1, 1),
            ({"epochs": None, "steps": 8, "batch_size": 8}, 8, 2),
            ({"epochs": None, "steps": 9, "batch_size": 8}, 9, 3),  # the third is cut short
            ({"epochs": None, "steps": 5, "batch_size": 100}, 5, 5),
        ],
    )
    def test_epochs_and_steps_are_counted_as_a_loop_counts_them(self, train, steps, epochs):
        trials, records = self.run(**train)
        assert list(records.steps["step"]) == list(range(1, steps + 1))
        assert list(records.epochs["epoch"]) == list(range(1, epochs + 1))
        loop = oracle.Loop(trials[0], datasets.load(self.table)).train(steps)
        np.testing.assert_allclose(records.steps["train/loss"], loop.column("loss"), rtol=1e-10)
        each = -(-steps // epochs) if train.get("steps") is None else {1: 1, 8: 4, 9: 4, 5: 1}[train["steps"]]
        means = [np.mean(loop.column("loss")[start : start + each]) for start in range(0, steps, each)]
        np.testing.assert_allclose(records.epochs["train/loss"], means, rtol=1e-10)

    def test_evaluation_comes_every_so_many_epochs_and_at_the_end(self):
        _, records = self.run(epochs=8, batch_size=10, evaluate_every=3)
        measured = np.isfinite(records.epochs["val/r2"])
        assert list(np.flatnonzero(measured) + 1) == [3, 6, 8]
        assert np.isfinite(records.epochs["weight_norm"]).all()
        assert records.records["val/r2"][0] == records.epochs["val/r2"][-1]
        assert records.records["best_val/r2"][0] == np.nanmax(records.epochs["val/r2"])
        assert records.records["best_val/mse"][0] == np.nanmin(records.epochs["val/mse"])
        every, _ = self.run(epochs=8, batch_size=10), None
        np.testing.assert_array_equal(every[1].epochs["val/r2"][measured], records.epochs["val/r2"][measured])

    @pytest.mark.parametrize("measure", ["val/r2", "val/mse", "val/loss", "train/loss"])
    def test_a_target_is_reached_at_the_first_epoch_that_is_as_good(self, measure):
        _, records = self.run(epochs=12, batch_size=10)
        curve = records.epochs[measure]
        assert (np.diff(curve) < 0).all() or (np.diff(curve) > 0).all()
        for reached, expected in ((curve[6], 7), (curve[0], 1), (curve[-1], 12)):
            _, aimed = self.run(epochs=12, batch_size=10, target=(measure, float(reached)))
            assert aimed.records["epochs_to_target"][0] == expected
        beyond = 2 * curve[-1] - curve[-2]
        _, missed = self.run(epochs=12, batch_size=10, target=(measure, float(beyond)))
        assert missed.records["epochs_to_target"][0] is None
        assert records.records["epochs_to_target"][0] is None

    def test_a_target_between_evaluations_is_reached_at_the_next(self):
        _, records = self.run(epochs=12, batch_size=10)
        reached = float(records.epochs["val/r2"][4])
        _, seldom = self.run(epochs=12, batch_size=10, evaluate_every=4, target=("val/r2", reached))
        assert seldom.records["epochs_to_target"][0] == 8

    def test_seeds_of_any_size_stand_in_one_chunk(self):
        seeds = (0, 1, 2**31, 2**40 + 5, 2**63 - 1)  # torch reads the lower 32 bits
        for model in ("linear", "tests.toys:with_dropout"):
            made = Training(epochs=2, batch_size=8, loss=C("mse"), dtype="float64")
            component = C(model) if ":" in model else C(model, bias=True)
            trials = [Trial(self.table, component, C("sgd", lr=0.05), made, C("none"), seed) for seed in seeds]
            together = engine.train(trials)
            assert list(together.records["seed"]) == sorted(seeds)
            assert len({float(series(together, trial, "train/loss")[0]) for trial in trials}) == len(seeds)
            for trial in (trials[0], trials[-1]):
                alone = series(engine.train([trial]), trial, "train/loss")
                np.testing.assert_array_equal(series(together, trial, "train/loss"), alone)

    @pytest.mark.parametrize("examples", [3, 5])
    def test_one_example_in_a_part_is_enough(self, examples):
        table = C("tests.toys:line", examples=examples)
        made = Training(epochs=3, batch_size=1, loss=C("mse"), metrics=(C("mse"),), dtype="float64")
        trial = Trial(table, C("linear", bias=True), C("sgd", lr=0.01), made, C("none"), 0)
        records = engine.train([trial])
        assert final(records, trial, "status") == "finished"
        loop = oracle.Loop(trial, datasets.load(table)).train(3 * len(datasets.load(table).train[0]))
        np.testing.assert_allclose(records.steps["train/loss"], loop.column("loss"), rtol=1e-10)

    def test_vanishing_elements_are_counted(self):
        """A third of the inputs is 0, and so is the gradient of their weights: 1 of 4 parameters."""
        table = C("tests.toys:one_dead_input")
        made = Training(epochs=2, batch_size=8, loss=C("mse"), dtype="float64")
        records = engine.train([Trial(table, C("linear", bias=True), C("sgd", lr=0.01), made, C("none"), 0)])
        assert list(records.epochs["grad/vanishing"]) == [0.25, 0.25]

    def test_a_class_that_training_never_sees_has_an_output_all_the_same(self):
        table = C("tests.toys:a_class_only_in_test")
        made = Training(epochs=2, batch_size=8, loss=C("cross_entropy"), metrics=(C("accuracy"),))
        trial = Trial(table, C("linear", bias=True), C("sgd", lr=0.1), made, C("none"), 0)
        records = engine.train([trial])
        assert final(records, trial, "status") == "finished"
        assert final(records, trial, "parameters") == 4 * 4 + 4
        assert math.isfinite(final(records, trial, "test/loss"))
