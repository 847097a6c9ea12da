"""An optimizer of the user's own: as a formula it is compiled with the step, and equals the same as an object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipbench import engine
from clipbench.core.trial import Component, Trial
from tests.engine.test_engine import ARMS, MODELS, SCHEDULES, training

C = Component.of
OPTIONS = {"lr": 0.02, "betas": [0.8, 0.95], "weight_decay": 0.01}


@pytest.mark.parametrize("schedule", [None, "cosine"])
def test_a_formula_equals_an_object_and_is_compiled(schedule, assert_fastest):
    train = replace(training("mlp", "float64", 30), schedule=SCHEDULES[schedule] if schedule else None)
    arms = ("none", "norm", "value", "skip", "autoclip", "agc")
    found = {}
    for name in ("lion", "Lion"):
        optimizer = C(f"tests.toys:{name}", **OPTIONS)
        trials = [Trial(*MODELS["mlp"], optimizer, train, ARMS[arm], seed) for arm in arms for seed in (3, 5)]
        found[name] = engine.train(trials)
    formula, object_ = found["lion"], found["Lion"]
    assert_fastest(formula.records["engine"], formula.records["engine_note"])
    for column in ("train/loss", "grad_norm/pre", "grad_norm/post"):
        np.testing.assert_allclose(formula.steps[column], object_.steps[column], rtol=1e-9)
