"""The constant prediction that training must beat, beside numbers worked out by hand."""

import numpy as np
import pytest

from clipbench.planning.build import prepare
from tests.cli_helpers import write


def constants(tmp_path, **sections):
    plan = prepare(str(write(tmp_path, **sections)))
    (found,) = plan.constants.values()
    return plan, found


def test_of_classes_it_is_the_most_frequent_one_of_the_training_part(tmp_path):
    plan, found = constants(tmp_path, data="wine")
    from clipbench import datasets

    loaded = datasets.load(plan.trials[0].data)
    most = np.bincount(loaded.train[1]).argmax()
    for part in ("train", "val", "test"):
        assert found[f"{part}/accuracy"] == pytest.approx(np.mean(getattr(loaded, part)[1] == most))
    assert "test/loss" not in found


def test_of_numbers_it_is_the_mean_of_the_training_part(tmp_path):
    plan, found = constants(tmp_path, data="diabetes", report={"metric": "test/mse"})
    from clipbench import datasets

    loaded = datasets.load(plan.trials[0].data)
    mean = loaded.train[1].mean()
    assert found["test/mse"] == pytest.approx(np.square(loaded.test[1] - mean).mean(), rel=1e-5)
    assert found["train/r2"] == pytest.approx(0, abs=1e-5)


def test_each_fold_has_its_own(tmp_path):
    plan = prepare(str(write(tmp_path, data={"name": "wine", "folds": 3})))
    assert len(plan.constants) == 3
    assert set(plan.constants) == {trial.fingerprint for trial in plan.trials}


def test_an_objective_without_data_has_none(tmp_path):
    plan = prepare(
        str(write(tmp_path, data="none", model="rosenbrock", train={"steps": 5, "loss": "output"}, report={}))
    )
    assert plan.constants == {}
