"""A results folder of clipbench: the norms of its trials without clipping, up to where they diverged."""

import shutil

import numpy as np
import pandas as pd
import pytest

from clipbench.errors import InputError
from clipbench.logged_norms import read_norms
from tests.cli_helpers import train, write

ARMS = ["none", {"name": "norm", "threshold": [0.5, 100.0]}]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    train(write(folder, clip=ARMS, seeds=2), folder / "results", "--workers", "1")
    return folder / "results"


def read(source, results="results", *wanted):
    return read_norms(str(source), wanted, results, None)


def of_arm(results, arm, column="grad_norm/pre", study="small"):
    steps = pd.read_parquet(results / study / "steps")
    return steps[steps["arm"] == arm][column].to_numpy()


def test_a_results_folder_has_the_norms_of_its_trials_without_clipping(results):
    for source in (results / "small", results / "small/steps", next((results / "small/steps").glob("[!+]*"))):
        [norms] = read(source)
        assert [len(each) for each in norms.trainings] == [8, 8]
        np.testing.assert_allclose(np.sort(norms.whole), np.sort(of_arm(results, "none")))
    assert norms.source == "small, digits with mlp/sgd, arm none" and norms.columns == ("grad_norm/pre",)
    assert read("small", results)[0].steps == norms.steps


def test_another_column_can_be_named(results):
    [norms] = read(results / "small", "results", "grad_max/pre")
    np.testing.assert_allclose(np.sort(norms.whole), np.sort(of_arm(results, "none", "grad_max/pre")))


def test_without_an_unclipped_arm_the_one_that_clips_least_is_used(tmp_path):
    train(write(tmp_path, clip=ARMS[1:], seeds=1, report={"baseline": "norm@0.5"}), tmp_path / "results", "-q")
    [norms] = read(tmp_path / "results/small")
    np.testing.assert_allclose(norms.whole, of_arm(tmp_path / "results", "norm@100.0"))
    assert norms.notes == (
        "there is no trial without clipping; these norms are those before norm@100.0 clipped 0.0% of the steps.",
    )


def test_steps_before_a_divergence_are_used(tmp_path):
    rate = {"name": "sgd", "lr": 1e9}
    path = write(tmp_path, model={"name": "linear_net", "std": 2.0}, optimizer=rate, clip=ARMS, seeds=2)
    train(path, tmp_path / "results", "-q")
    [norms] = read(tmp_path / "results/small")
    records = pd.read_parquet(tmp_path / "results/small/records")
    assert norms.steps == (records[records["arm"] == "none"]["diverged_step"] - 1).sum()
    assert norms.notes == ("2 of 2 trials diverged; the steps before are used.",)


def test_each_setting_has_its_own_norms(tmp_path):
    path = write(tmp_path, optimizer={"name": "sgd", "lr": [0.1, 0.2]}, clip=ARMS, seeds=1)
    train(path, tmp_path / "results", "-q")
    assert [norms.source for norms in read(tmp_path / "results/small")] == [
        "small, digits with mlp/sgd (lr=0.1), arm none",
        "small, digits with mlp/sgd (lr=0.2), arm none",
    ]


def test_of_several_studies_one_must_be_named(results, tmp_path):
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    assert read(tmp_path)[0].steps == 16
    shutil.copytree(results / "small", tmp_path / "other")
    with pytest.raises(InputError, match=r"has the results of 2 experiments\. Name one: other, small"):
        read(tmp_path)
