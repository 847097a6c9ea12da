"""What a trial's run in MLflow says."""

import math

import numpy as np

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


def test_steps_are_thinned_and_keep_both_ends():
    steps = {"step": np.arange(1, 1001), "train/loss": np.arange(1000.0)}
    kept = [when for _, _, when in trial_to_run.metrics({"id": "abc"}, {}, steps)]
    assert len(kept) == trial_to_run.POINTS and kept[0] == 1 and kept[-1] == 1000 and kept == sorted(set(kept))


def test_names_are_made_acceptable():
    assert key("clip(per=tensor)/x%") == "clip_per_tensor_/x_"
    assert key("../a//b") == "a/b"
    assert len(key("x" * 300)) == 250


def test_a_digest_fits_and_no_data_is_no_data_set():
    data = trial_to_run.data_input(ROW)
    assert (data.name, len(data.digest)) == ("digits", 36) and '"data": "digits"' in data.source
    assert trial_to_run.data_input({"id": "abc"}) is None
