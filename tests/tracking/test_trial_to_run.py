"""What a trial's run in MLflow says."""

import math

import numpy as np
import pytest
from mlflow.data import get_source
from mlflow.entities import Dataset

from clipbench.tracking import trial_to_run
from clipbench.tracking.run_values import key

ROW = {
    "id": "abc",
    "status": "diverged",
    "arm": "norm@1.0",
    "seed": 3,
    "threshold": 1.0,
    "train.epochs": 20,
    "model.hidden": "[128]",
    "data": "digits",
    "fingerprint": "f" * 40,
    "test/loss": math.inf,
    "val/loss": 0.5,
    "seconds": 1.5,
    "parameters": 100,
    "diverged_cause": "loss",
}


def test_every_option_is_a_param_and_nothing_else():
    names = {"arm", "seed", "threshold", "train.epochs", "model.hidden", "data", "fingerprint"}
    assert set(trial_to_run.params(ROW)) == names
    assert trial_to_run.params(ROW)["threshold"] == "1.0" and trial_to_run.params(ROW)["train.epochs"] == "20"


def test_words_are_tags():
    said = {"clipbench.trial": "abc", "clipbench.status": "diverged", "clipbench.diverged_cause": "loss"}
    assert trial_to_run.tags(ROW) == said


def test_no_metric_is_ever_non_finite_and_no_name_means_two_things():
    epochs = {"id": np.array(["abc"] * 2), "epoch": np.array([1, 2]), "val/loss": np.array([0.7, np.nan])}
    steps = {"step": np.arange(1, 4), "grad_norm/pre": np.array([1.0, np.inf, -np.inf])}
    assert trial_to_run.metrics(ROW, epochs, steps) == (
        ("epoch/val/loss", 0.7, 1),
        ("step/grad_norm/pre", 1.0, 1),
        ("val/loss", 0.5, 0),
        ("seconds", 1.5, 0),
        ("parameters", 100.0, 0),
    )


def test_of_equal_points_in_a_row_the_first_and_the_last_are_sent():
    fired = np.array([0, 0, 0, 0, 1, 1, 0, 0, 0])
    sent = trial_to_run.metrics({"id": "abc"}, {}, {"step": np.arange(1, 10), "clip/fired": fired})
    assert [when for _, _, when in sent] == [1, 4, 5, 6, 7, 9], "a line through them is the same"


def test_a_long_series_is_sent_as_means_of_equal_windows():
    steps = {"step": np.arange(1, 1001), "train/loss": np.arange(1000.0)}
    _, values, whens = zip(*trial_to_run.metrics({"id": "abc"}, {}, steps), strict=True)
    assert whens == tuple(range(40, 1001, 40)), "each mean is at the last step of its window"
    assert values == tuple(np.arange(1000.0).reshape(25, 40).mean(1))


def test_windows_cover_every_step_whatever_its_number():
    for steps in (1, 24, 25, 26, 49, 50, 51, 340):
        series = {"step": np.arange(1, steps + 1), "x": np.random.default_rng(steps).normal(size=steps)}
        _, values, whens = zip(*trial_to_run.metrics({"id": "abc"}, {}, series), strict=True)
        assert len(whens) == min(steps, trial_to_run.POINTS) and whens[-1] == steps
        lengths = np.diff([0, *whens])
        assert np.dot(values, lengths) == pytest.approx(series["x"].sum()) and max(lengths) - min(lengths) <= 1


def test_names_are_made_acceptable():
    assert key("clip(per=tensor)/x%") == "clip_per_tensor_/x_"
    assert key("../a//b") == "a/b"
    assert len(key("x" * 300)) == 250


def test_a_digest_fits_and_no_data_is_no_data_set():
    data = trial_to_run.data_input(ROW)
    assert (data.name, len(data.digest)) == ("digits", 36) and '"data": "digits"' in data.source
    assert trial_to_run.data_input({"id": "abc"}) is None


def test_a_file_is_a_data_set_of_its_name_and_place():
    row = {"data": "csv", "fingerprint": "f", "data.path": "tables/churn.csv", "data.target": "churned"}
    data = trial_to_run.data_input(row)
    assert data.name == "churn.csv"
    known = Dataset(data.name, data.digest, data.source_type, data.source)
    assert get_source(known).uri == "tables/churn.csv", "as MLflow reads it"


def test_a_data_set_of_a_library_has_the_name_it_has_there():
    data = trial_to_run.data_input({"data": "openml", "fingerprint": "f", "data.dataset": "mnist_784"})
    assert (data.name, data.source_type) == ("mnist_784", "code")
