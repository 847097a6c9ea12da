"""Epochs of a record are summed up from its steps, whole ones and a last one that was cut short."""

import numpy as np
import pandas as pd
import pytest

from clipbench import engine
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial

C = Component.of
TABLE = C("noise_regression", samples=40, features=3, seed=0)  # 24 examples to train on: 3 steps an epoch


def trained(steps: int, lr: float = 0.1) -> Records:
    train = Training(epochs=None, steps=steps, batch_size=8, loss=C("mse"), metrics=(C("mse"),))
    trials = [Trial(TABLE, C("linear", bias=True), C("sgd", lr=lr), train, C("none"), seed) for seed in (0, 1)]
    return engine.train(trials)


@pytest.mark.parametrize("steps", [1, 3, 7, 9])
def test_epochs_are_what_pandas_makes_of_the_steps(steps):
    records = trained(steps)
    table = pd.DataFrame(records.steps)
    groups = table.groupby([table["id"], (table["step"] - 1) // 3 + 1])
    found = pd.DataFrame(records.epochs).set_index(["id", "epoch"]).sort_index()
    assert len(found) == 2 * -(-steps // 3)
    assert set(records.records["epochs"]) == {-(-steps // 3)}
    for column, expected in {
        "train/loss": groups["train/loss"].mean(),
        "grad_norm/pre_p50": groups["grad_norm/pre"].quantile(0.5),
        "grad_norm/pre_p99": groups["grad_norm/pre"].quantile(0.99),
    }.items():
        np.testing.assert_allclose(found[column], expected.sort_index(), rtol=1e-5)


def test_trial_that_diverges_in_its_first_epoch_has_none():
    records = trained(9, lr=1e30)
    assert set(records.records["status"]) == {"diverged"}
    assert len(records.epochs["epoch"]) == 0
