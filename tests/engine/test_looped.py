"""Models that cannot be stacked are trained one after another, say why, and come out as the plain loop's."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial
from clipbench.errors import Unsupported
from tests import oracle
from tests.thinning import one_of

C = Component.of
TABLE = C("tests.toys:line", examples=50, features=3, seed=4)
ARMS = {
    "none": C("none"),
    "norm": C("norm", threshold=0.5, p=2.0, per="model", exclude=()),
    "unit": C("norm", threshold=0.2, p=2.0, per="unit", exclude=()),
    "value": C("value", threshold=0.05, exclude=()),
    "skip": C("skip", threshold=2.0, exclude=()),
}
STEPS = 12
ADAM = C("adam", lr=0.01)
SGD = C("sgd", lr=0.02, momentum=0.9)

LOOPED = {"looks_at_numbers": "vmap", "branches": "vmap"}
NOISY = ("with_dropout", "never_stops_dropping")
CHANGING = ("with_batch_norm", "counts_batches")
STACKED = ("plain", "with_constant", "frozen_body", "tied", "with_scalar", "with_idle_layer", *CHANGING, *NOISY)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def training(**changes: object) -> Training:
    options = {"steps": STEPS, "batch_size": 8, "loss": C("mse"), "metrics": (C("mse"),), "dtype": "float64"}
    return Training(epochs=None, **{**options, "save_weights": True, **changes})


def trials_of(
    model: str,
    optimizer: Component = SGD,
    seeds: tuple[int, ...] = (1, 2),
    train: Training | None = None,
    **options,
) -> list[Trial]:
    component = C(f"tests.toys:{model}", **options)
    train = train or training()
    return [Trial(TABLE, component, optimizer, train, arm, seed) for seed in seeds for arm in ARMS.values()]


def column(records: Records, trial: Trial, name: str) -> np.ndarray:
    return records.steps[name][records.steps["id"] == trial.id]


def record(records: Records, trial: Trial) -> dict[str, object]:
    row = list(records.records["id"]).index(trial.id)
    return {name: values[row] for name, values in records.records.items()}


def assert_as_the_loop(records: Records, trial: Trial, steps: int = STEPS) -> None:
    loaded = datasets.load(trial.data)
    loop = oracle.Loop(trial, loaded)
    expected = loop.train(steps)
    for name, theirs in {"train/loss": "loss", "grad_norm/pre": "pre", "grad_norm/post": "post"}.items():
        np.testing.assert_allclose(
            column(records, trial, name),
            expected.column(theirs),
            rtol=1e-9,
            atol=1e-12,
            err_msg=f"{trial.arm} {name}",
        )
    model = loop.model.eval()
    for part in ("val", "test"):
        x, y = (torch.as_tensor(array) for array in getattr(loaded, part))
        torch.manual_seed(1_000_003 * trial.seed + steps)
        with torch.no_grad():
            loss = float(((copy.deepcopy(model)(x) - y) ** 2).mean())
        assert record(records, trial)[f"{part}/loss"] == pytest.approx(loss, rel=1e-8)


@pytest.mark.parametrize("model", LOOPED)
def test_models_that_cannot_be_stacked_are_looped_with_a_reason(model):
    records = engine.train(trials_of(model, train=training(steps=2)))
    assert set(records.records["engine"]) == {"looped"}
    [note] = set(records.records["engine_note"])
    assert LOOPED[model] in note
    assert set(records.records["status"]) == {"finished"}


@pytest.mark.parametrize("model", STACKED)
def test_models_that_can_be_stacked_are_stacked(model, assert_fastest):
    records = engine.train(trials_of(model, train=training(steps=2)))
    assert_fastest(records.records["engine"], records.records["engine_note"])


@pytest.mark.parametrize("optimizer", one_of(2, [SGD, ADAM]), ids=["sgd", "adam"])
@pytest.mark.parametrize("model", [*LOOPED, *STACKED])
def test_every_kind_of_model_is_trained_as_the_plain_loop_does(model, optimizer):
    trials = trials_of(model, optimizer)
    records = engine.train(trials)
    for trial in trials:
        assert_as_the_loop(records, trial)


def test_a_buffer_that_is_replaced_counts_as_one_that_is_changed(assert_fastest):
    """`self.seen = self.seen + 1` must not be lost, as it is in a call with other buffers."""
    trials = trials_of("counts_batches", in_place=False)
    records = engine.train(trials)
    assert_fastest(records.records["engine"], records.records["engine_note"])
    for trial in trials:
        assert_as_the_loop(records, trial)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-11), ("float32", 2e-4)])
def test_both_paths_give_the_same_numbers(dtype, tolerance):
    train = training(dtype=dtype)
    stacked, looped = (trials_of(model, ADAM, train=train) for model in ("plain", "looks_at_numbers"))
    one, other = engine.train(stacked), engine.train(looped)
    assert set(one.records["engine"]) != {"looped"} == set(other.records["engine"])
    for mine, theirs in zip(stacked, looped, strict=True):
        np.testing.assert_allclose(one.weights[mine.id], other.weights[theirs.id], rtol=tolerance, atol=tolerance)
        for name in (
            "train/loss",
            "grad_norm/pre",
            "grad_norm/post",
            "clip/fired",
            "clip/fraction",
            "clip/cosine",
        ):
            np.testing.assert_allclose(
                column(one, mine, name),
                column(other, theirs, name),
                rtol=tolerance,
                atol=tolerance,
                err_msg=name,
            )
        for name in ("train/loss", "val/mse", "test/mse", "best_val/mse", "generalization_gap"):
            assert record(one, mine)[name] == pytest.approx(record(other, theirs)[name], rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("examples", [50, 700])
def test_examples_that_interact_are_evaluated_together(examples):
    """700 examples are more than go through a model at once."""
    data = C("tests.toys:line", examples=examples, features=3, seed=4)
    trials = [Trial(data, C("tests.toys:compares_examples"), SGD, training(), arm, 1) for arm in ARMS.values()]
    records = engine.train(trials)
    for trial in trials:
        assert_as_the_loop(records, trial)


# Dropout


@pytest.mark.parametrize("model", NOISY)
def test_noise_depends_on_the_seed_alone(model):
    trials = trials_of(model)
    torch.manual_seed(11)
    once = engine.train(trials)
    torch.manual_seed(12)
    again = engine.train(trials)
    for trial in trials[::4]:
        alone = engine.train([trial])
        for other in (again, alone):
            np.testing.assert_array_equal(column(once, trial, "train/loss"), column(other, trial, "train/loss"))
            np.testing.assert_array_equal(once.weights[trial.id], other.weights[trial.id])
            for name in ("train/loss", "val/loss", "test/loss"):
                assert record(once, trial)[name] == record(other, trial)[name], name


def test_arms_of_a_seed_drop_the_same_units_and_seeds_drop_others():
    still = C("sgd", lr=0.0)
    trials = trials_of("with_dropout", still)
    records = engine.train(trials)
    losses = {seed: {tuple(column(records, t, "train/loss")) for t in trials if t.seed == seed} for seed in (1, 2)}
    assert all(len(shared) == 1 for shared in losses.values())
    assert losses[1] != losses[2]


def test_noise_differs_at_every_step():
    """The whole training set at every step and weights that stand still: only the noise differs."""
    trials = trials_of("with_dropout", C("sgd", lr=0.0), train=training(batch_size=None))
    losses = column(engine.train(trials), trials[0], "train/loss")
    assert len(set(losses)) == len(losses)


def test_noise_does_not_move_the_batches():
    """Dropout of nothing draws, and must train as no dropout at all, but for the draw of initial weights."""
    still = C("sgd", lr=0.0)
    trials = trials_of("with_dropout", still, p=0.0)
    records = engine.train(trials)
    for trial in trials[:1]:
        np.testing.assert_allclose(
            column(records, trial, "train/loss"),
            oracle.Loop(trial, datasets.load(TABLE)).train(STEPS).column("loss"),
            rtol=1e-12,
        )


def test_dropout_is_off_in_evaluation():
    trials = trials_of("with_dropout", C("sgd", lr=0.0))
    records = engine.train(trials)
    model = oracle.initial_model(trials[0], datasets.load(TABLE)).double().eval()
    x, y = (torch.as_tensor(array) for array in datasets.load(TABLE).test)
    with torch.no_grad():
        expected = float(((model(x) - y) ** 2).mean())
    assert record(records, trials[0])["test/mse"] == pytest.approx(expected)


# Parameters that are trained, and those that are not


def test_frozen_parameters_stay_as_they_were_and_are_not_counted():
    trials = trials_of("frozen_body", C("sgd", lr=0.02, weight_decay=0.5))
    records = engine.train(trials)
    assert record(records, trials[0])["parameters"] == 7  # the head of a 3-6-1 network
    assert len(records.weights[trials[0].id]) == 7
    one, two = (t for t in trials if t.clip == ARMS["none"])
    assert not np.array_equal(records.weights[one.id], records.weights[two.id])


def test_a_rule_may_leave_everything_alone_but_a_frozen_part():
    """`exclude: [head]` on a network of which only the head is trained: nothing is clipped, and nothing breaks."""
    arm = C("norm", threshold=1e-3, p=2.0, per="tensor", exclude=("head",))
    arms = (
        arm,
        C("value", threshold=1e-3, exclude=("head",)),
        C("skip", threshold=1e-3, exclude=("head",)),
        C("none"),
    )
    trials = [Trial(TABLE, C("tests.toys:frozen_body"), SGD, training(), each, 1) for each in arms]
    records = engine.train(trials)
    assert set(records.records["clip/fired_share"]) == {0.0}
    for trial in trials[:-1]:
        np.testing.assert_array_equal(records.weights[trial.id], records.weights[trials[-1].id])


def test_tied_weights_are_one_tensor_with_one_gradient():
    trials = trials_of("tied")
    records = engine.train(trials)
    assert record(records, trials[0])["parameters"] == 9 + 3 + 3 + 3 + 1
    loop = oracle.Loop(trials[0], datasets.load(TABLE))
    loop.train(STEPS)
    assert torch.equal(loop.model[0].weight, loop.model[2].weight)
    expected = torch.cat([p.detach().flatten() for p in loop.model.parameters()])
    np.testing.assert_allclose(records.weights[trials[0].id], expected, rtol=1e-9)


def test_a_layer_without_gradient_stays_as_it_was():
    trials = trials_of("with_idle_layer")
    records = engine.train(trials)
    start = oracle.initial_model(trials[0], datasets.load(TABLE)).double()
    idle = torch.cat([p.detach().flatten() for p in start.idle.parameters()])
    for trial in [t for t in trials if t.seed == trials[0].seed]:
        np.testing.assert_array_equal(records.weights[trial.id][-6:], idle)


# Invalid models


@pytest.mark.parametrize(
    "model, loss, says",
    [
        ("returns_a_tuple", "mse", "must return a tensor, got tuple"),
        ("returns_no_module", "mse", "must return a torch.nn.Module, got function"),
        ("all_frozen", "mse", "no parameters to train"),
        ("plain", "tests.toys:loss_per_example", "must be a scalar"),
    ],
)
def test_an_invalid_model_is_refused_with_a_message(model, loss, says):
    with pytest.raises((TypeError, ValueError, Unsupported), match=says):
        engine.train(trials_of(model, train=training(loss=C(loss))))


# Metrics


@pytest.mark.parametrize("model", ["plain", "looks_at_numbers"])
def test_a_metric_may_leave_torch(model):
    """As those of scikit-learn do: vmap cannot follow, so evaluation goes one model after another."""
    names = ("tests.toys:by_numpy", "tests.toys:largest_error")
    trials = trials_of(model, train=training(metrics=tuple(map(C, names))))
    records = engine.train(trials)
    for trial in trials:
        found = record(records, trial)
        assert found["status"] == "finished"
        assert found["test/by_numpy"] == pytest.approx(found["test/largest_error"], rel=1e-6)
        assert_as_the_loop(records, trial)


@pytest.mark.parametrize("model", ["plain", "looks_at_numbers"])
def test_a_metric_that_returns_no_tensor_is_refused_with_a_message(model):
    with pytest.raises(Unsupported, match="a_plain_number must return a scalar tensor, got float"):
        engine.train(trials_of(model, train=training(metrics=(C("tests.toys:a_plain_number"),))))
