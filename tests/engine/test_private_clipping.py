"""Per-example clipping beside Opacus's own optimizers: per layer, and with a threshold that follows a quantile."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.core.parameter_groups import group_of
from clipbench.core.trial import Component
from clipbench.engine.clipping.privacy import is_bounded
from tests import oracle
from tests.engine.test_engine import steps_of
from tests.engine.test_scope import NORM, assert_as_the_loop, trials_of

C = Component.of
LIMITS = (0.2, 0.05, 0.3, 0.1)  # of the four parameters
OPTIONS = {"lr": 0.02, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}
opacus_warns = pytest.mark.filterwarnings("ignore:Full backward hook", "ignore:Secure RNG")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def by_opacus(trial, make, steps=8):
    """The norm of the gradient of each step that an optimizer of Opacus takes."""
    opacus = pytest.importorskip("opacus")
    loop = oracle.Loop(trial, datasets.load(trial.data))
    model = opacus.GradSampleModule(loop.model)
    generator = torch.Generator().manual_seed(2**31 + trial.seed)
    sgd = torch.optim.SGD(model.parameters(), **OPTIONS)
    optimizer = make(opacus.optimizers)(sgd, expected_batch_size=16, generator=generator)
    batches, norms = loop._batches(), []
    for _ in range(steps):
        x, y = next(batches)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        norms.append(float(torch.stack([p.grad.norm() for p in model.parameters()]).norm()))
    return norms, optimizer


@opacus_warns
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_threshold_for_each_parameter_is_opacus_per_layer(noise, assert_fastest):
    arm = C("norm", **NORM | {"threshold": 1.0}, groups=LIMITS, scope="sample", noise=noise)
    [trial] = trials_of([arm], steps=8)
    records = engine.train([trial])
    assert_fastest(records.records["engine"], records.records["engine_note"])

    def make(optimizers):
        layers = {"noise_multiplier": noise, "max_grad_norm": list(LIMITS)}
        return lambda sgd, **given: optimizers.DPPerLayerOptimizer(sgd, **layers, **given)

    norms, _ = by_opacus(trial, make)
    np.testing.assert_allclose(steps_of(records, trial)["grad_norm/post"], norms, rtol=1e-6)


def test_noise_of_groups_is_a_multiple_of_the_norm_of_their_thresholds():
    groups = {"patterns": (group_of(("head",), threshold=0.3), group_of(("*",), threshold=0.4)), "list": LIMITS}
    arms = [
        C("norm", **NORM | {"threshold": c}, groups=each, scope="sample", noise=0.7)
        for each in groups.values()
        for c in (1.0, 0.5)
    ]
    assert_as_the_loop(trials_of(arms, seeds=(3, 4)))


def test_epsilon_is_known_where_every_parameter_is_in_a_group():
    private = {"scope": "sample", "noise": 1.1}
    whole = C("norm", **NORM, **private)
    layers = C("norm", **NORM, **private, groups=LIMITS)
    open_end = C("norm", **NORM, **private, groups=(group_of(("head",), threshold=0.3),))
    without = C("norm", **NORM, **private, groups=(0.2, None, 0.3, 0.1))
    names = ["hidden1.weight", "hidden1.bias", "head.weight", "head.bias"]
    assert [is_bounded(arm, names) for arm in (whole, layers, open_end, without)] == [True, True, False, False]
    trials = trials_of([whole, layers, open_end, without])
    records = engine.train(trials).records
    spent = dict(zip(records["id"], records["epsilon"], strict=True))
    found = [spent[trial.id] for trial in trials]
    assert found[2:] == [None, None]
    assert found[0] == found[1]
