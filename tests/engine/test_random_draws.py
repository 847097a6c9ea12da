"""Models that draw random numbers or normalize by the batch, trained as by a plain loop that seeds torch each step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial
from tests import oracle
from tests.engine.drawing_models import NOISES, NORMALIZATIONS, SEQUENCE_LAYERS
from tests.thinning import one_of

C = Component.of
DATA = C("tests.toys:line", examples=50, features=3, seed=4)
ARMS = [C("none"), C("norm", threshold=0.5, p=2.0, per="model", exclude=())]
STEPS = 9  # of 8 examples, four in an epoch, the last of 6


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trials_of(model: Component, dtype: str = "float64", **changes: object) -> list[Trial]:
    options = {"steps": STEPS, "batch_size": 8, "loss": C("mse"), "metrics": (C("mse"),), "dtype": dtype}
    train = Training(epochs=None, **{**options, **changes})
    sgd = C("sgd", lr=0.05, momentum=0.9)
    return [Trial(DATA, model, sgd, train, arm, seed) for seed in (1, 2) for arm in ARMS]


def assert_as_the_loop(trials: list[Trial], tolerance: float = 1e-9) -> Records:
    records = engine.train(trials)
    data = datasets.load(DATA)
    for trial in trials:
        loop = oracle.Loop(trial, data)
        expected = loop.train(STEPS)
        mine = records.steps["id"] == trial.id
        for name, theirs in {"train/loss": "loss", "grad_norm/pre": "pre", "grad_norm/post": "post"}.items():
            np.testing.assert_allclose(
                records.steps[name][mine], expected.column(theirs), rtol=tolerance, atol=tolerance, err_msg=name
            )
        row = list(records.records["id"]).index(trial.id)
        for part in ("val", "test"):
            x, y = (torch.as_tensor(array) for array in getattr(data, part))
            torch.manual_seed(1_000_003 * trial.seed + STEPS)
            assert records.records[f"{part}/loss"][row] == pytest.approx(loop.evaluate(x, y), rel=10 * tolerance)
    return records


@pytest.mark.parametrize("noise", one_of(2, NOISES))
def test_every_way_to_draw_is_that_of_the_plain_loop(noise):
    records = assert_as_the_loop(trials_of(C("tests.engine.drawing_models:drawing", noise=noise)))
    looped = set(records.records["engine"]) == {"looped"}
    assert not (looped and engine.has_kernels("float64")), records.records["engine_note"]


@pytest.mark.parametrize("cells", one_of(3, SEQUENCE_LAYERS))
def test_layers_with_dropout_of_their_own_draw_as_in_the_plain_loop(cells, assert_fastest):
    records = assert_as_the_loop(trials_of(C("tests.engine.drawing_models:sequences", cells=cells)))
    assert_fastest(records.records["engine"], records.records["engine_note"])


@pytest.mark.parametrize("layer", NORMALIZATIONS)
def test_normalization_by_the_batch_and_its_running_statistics_are_those_of_the_plain_loop(layer, assert_fastest):
    records = assert_as_the_loop(trials_of(C("tests.engine.drawing_models:normalizing", layer=layer)))
    assert_fastest(records.records["engine"], records.records["engine_note"])


@pytest.mark.parametrize("model", [C("tests.engine.drawing_models:vae"), C("tests.engine.drawing_models:noisy_output")])
def test_models_that_draw_in_eval_mode_are_evaluated_as_the_plain_loop_does(model, assert_fastest):
    changes = {"loss": C("output"), "metrics": ()} if model.name.endswith("vae") else {}
    records = assert_as_the_loop(trials_of(model, **changes))
    assert_fastest(records.records["engine"], records.records["engine_note"])


@pytest.mark.parametrize("name", ["dropout", "a normal law", "gumbel"])
def test_float32_draws_are_those_of_the_plain_loop_too(name):
    assert_as_the_loop(trials_of(C("tests.engine.drawing_models:drawing", noise=name), "float32"), 1e-4)


def test_a_law_without_a_form_here_is_looped_and_says_which(monkeypatch):
    monkeypatch.setitem(NOISES, "poisson", lambda x: x * torch.poisson(x.detach().abs()))
    records = assert_as_the_loop(trials_of(C("tests.engine.drawing_models:drawing", noise="poisson")))
    assert set(records.records["engine"]) == {"looped"}
    assert "poisson" in records.records["engine_note"][0]
