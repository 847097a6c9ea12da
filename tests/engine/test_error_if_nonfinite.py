"""`error_if_nonfinite`: a gradient that is not finite ends the trial, as it ends a loop with torch's option."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.plugins import registry
from tests import oracle

C = Component.of
RULES = {name: rule for name, rule in registry.catalogue("strategy").items() if rule.clips}
DATA, MODEL = C("tests.toys:one_bad_example"), C("linear", bias=True)
TRAIN = Training(epochs=None, steps=8, batch_size=5, loss=C("mse"), dtype="float64")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def arms(**options: object) -> list[Component]:
    """Every rule, at a threshold at which it acts."""
    found = []
    for name, rule in RULES.items():
        own = {option.name: option.default for option in rule.options.values() if option.name != "threshold"}
        own |= {"threshold": 0.5} if "threshold" in rule.options else {}
        found.append(C(name, **own, exclude=(), **options))
    return found


def first_bad_step(trial: Trial) -> int:
    """Where a loop that is typed from torch's documentation raises, from 1."""
    loop = oracle.Loop(trial, datasets.load(DATA))
    for step, (x, y) in enumerate(loop._batches(), start=1):
        loop.optimizer.zero_grad()
        torch.nn.functional.mse_loss(loop.model(x).reshape(y.shape), y).backward()
        try:
            torch.nn.utils.clip_grad_norm_(loop.model.parameters(), 1e-9, error_if_nonfinite=True)
        except RuntimeError as error:
            assert "non-finite" in str(error)
            return step
    raise AssertionError("no gradient was infinite")


@pytest.mark.parametrize("scope", ["batch", "sample"])
def test_every_rule_ends_at_the_step_at_which_torch_raises(scope, assert_fastest):
    options = {} if scope == "batch" else {"scope": "sample"}
    fitting = [
        arm
        for arm in arms(error_if_nonfinite=True, **options)
        if scope == "batch" or not (RULES[arm.name].facts["init"] or RULES[arm.name].facts["on"] == "weights")
    ]
    trials = [Trial(DATA, MODEL, C("sgd", lr=1e-6), TRAIN, arm, seed) for arm in fitting for seed in (1, 2)]
    records = engine.train(trials)
    assert_fastest(records.records["engine"], records.records["engine_note"])
    ended = dict(zip(records.records["id"], records.records["diverged_step"], strict=True))
    causes = dict(zip(records.records["id"], records.records["diverged_cause"], strict=True))
    for trial in trials:
        assert ended[trial.id] == first_bad_step(trial), trial.arm
        assert causes[trial.id] in ("gradient", "loss")
        assert np.isfinite(records.steps["grad_norm/pre"][records.steps["id"] == trial.id][:-1]).all()


def test_without_it_rules_that_refuse_go_on():
    refusing = [name for name, rule in RULES.items() if rule.facts["refuses"]]
    chosen = {False: arms(), True: arms(error_if_nonfinite=True)}
    trials = {
        error: [Trial(DATA, MODEL, C("sgd", lr=1e-6), TRAIN, arm, 1) for arm in each if arm.name in refusing]
        for error, each in chosen.items()
    }
    status = {error: set(engine.train(each).records["status"]) for error, each in trials.items()}
    assert status == {False: {"finished"}, True: {"diverged"}}
