"""Per-example clipping beside Opacus's own optimizers: per layer, and with a threshold that follows a quantile."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipbench import datasets, engine
from clipbench.config.arm_options import validate_adapt
from clipbench.core.parameter_groups import group_of
from clipbench.core.trial import Component
from clipbench.engine.clipping.adaptive_threshold import gradient_noise_multiplier
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


# A threshold that follows a quantile: Andrew et al. 2021, arXiv:1905.03871


def adaptive(z: float = 0.0, threshold: float = 0.3, **options: float) -> Component:
    """The arm with noise z on the gradients, and these options of `adapt`."""
    arm = {**NORM, "threshold": threshold, "scope": "sample", "adapt": validate_adapt(options)}
    return C("norm", **arm, noise=z) if z else C("norm", **arm)


def of_opacus(noise: float, counts: float, low: float, high: float):
    def make(optimizers):
        options = {
            "noise_multiplier": noise,
            "target_unclipped_quantile": 0.4,
            "clipbound_learning_rate": 0.5,
            "unclipped_num_std": counts or 1e-9,  # it refuses 0
            "min_clipbound": low,
            "max_clipbound": high,
            "max_grad_norm": 0.3,
        }
        return lambda sgd, **given: optimizers.AdaClipDPOptimizer(sgd, **options, **given)

    return make


CASES = {
    "no noise": (0.0, 0.0, 1e-9, 1e9),
    "noise": (1.0, 0.8, 1e-9, 1e9),
    "noise of the counts": (0.0, 3.0, 1e-9, 1e9),
    "bounds": (0.5, 2.0, 0.25, 0.35),
}


@opacus_warns
@pytest.mark.parametrize("case", CASES)
def test_a_threshold_that_follows_a_quantile_is_that_of_opacus(case, monkeypatch, assert_fastest):
    """Opacus draws its two kinds of noise of one generator; here that of the counts has its own."""
    pytest.importorskip("opacus")
    from opacus.optimizers import adaclipoptimizer

    noise, counts, low, high = CASES[case]
    arm = adaptive(noise, quantile=0.4, lr=0.5, noise=counts, min=low, max=high)
    [trial] = trials_of([arm], steps=8, drop_last=True)
    records = engine.train([trial])
    assert_fastest(records.records["engine"], records.records["engine_note"])
    of_counts = torch.Generator().manual_seed(2**30 + trial.seed)
    theirs = adaclipoptimizer._generate_noise

    def drawn(std, reference, generator, secure_mode=False):
        if reference.dim():
            return theirs(std=std, reference=reference, generator=generator, secure_mode=secure_mode)
        return std * torch.randn(1, generator=of_counts, dtype=torch.float64)[0] if counts else torch.zeros(())

    monkeypatch.setattr(adaclipoptimizer, "_generate_noise", drawn)
    norms, _ = by_opacus(trial, of_opacus(noise, counts, low, high))
    np.testing.assert_allclose(steps_of(records, trial)["grad_norm/post"], norms, rtol=1e-6)


def test_the_threshold_follows_the_share_of_examples_as_in_the_paper(assert_fastest):
    """Algorithm 1 typed beside a plain loop; the smaller last batches have the examples that they have."""
    arms = [adaptive(threshold=c, quantile=q, lr=0.7) for c in (0.01, 10.0) for q in (0.2, 0.8)]
    trials = trials_of(arms, optimizer="sgd", steps=9)
    records = engine.train(trials)
    assert_fastest(records.records["engine"], records.records["engine_note"])
    for trial in trials:
        loop = oracle.Loop(trial, datasets.load(trial.data))
        batches, c, quantile = loop._batches(), trial.threshold, trial.clip["adapt"]["quantile"]
        losses, fired = [], []
        for _ in range(9):
            x, y = next(batches)
            total, unclipped, loss_of_all = None, 0, 0.0
            for one, target in zip(x, y, strict=True):
                loop.optimizer.zero_grad()
                loss = torch.nn.functional.mse_loss(loop.model(one[None]), target[None])
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(loop.model.parameters(), c)
                unclipped += float(norm) <= c
                g = [p.grad.clone() for p in loop.model.parameters()]
                total = g if total is None else [a + b for a, b in zip(total, g, strict=True)]
                loss_of_all += loss.item() / len(x)
            with torch.no_grad():
                for p, g in zip(loop.model.parameters(), total, strict=True):
                    p -= 0.02 * g / 16
            losses.append(loss_of_all)
            fired.append(float(unclipped < len(x)))
            c *= np.exp(-0.7 * (unclipped / len(x) - quantile))
        mine = steps_of(records, trial)
        np.testing.assert_allclose(mine["train/loss"], losses, rtol=1e-9)
        np.testing.assert_array_equal(mine["clip/fired"], fired)


def test_other_rules_and_models_follow_a_quantile_too(assert_fastest):
    """At the quantile the share of examples that are not clipped comes to rest, wherever the threshold begins."""
    adapt = {"quantile": 0.5, "lr": 0.3}
    own = {"scope": "sample", "exclude": (), "adapt": validate_adapt(adapt)}
    starts = (1e-3, 1.0, 1e3)
    arms = [C(name, threshold=c, **own) for name in ("drop", "value", "skip") for c in starts]
    trials = trials_of(arms, optimizer="sgd", steps=150, batch_size=None)
    trials = [type(t)(t.data, t.model, C("sgd", lr=1e-9), t.train, t.clip, t.seed) for t in trials]
    records = engine.train(trials)
    assert_fastest(records.records["engine"], records.records["engine_note"])
    for name in ("drop", "value", "skip"):
        ends = [steps_of(records, t)["grad_norm/post"][-1] for t in trials if t.clip.name == name]
        np.testing.assert_allclose(ends, ends[0], rtol=0.1, err_msg=name)


def test_noise_of_the_gradient_makes_up_for_that_of_the_counts():
    """Theorem 1: z = (z_gradient^-2 + (2 s)^-2)^(-1/2), and epsilon is that of z."""
    private = adaptive(1.1, quantile=0.5, noise=0.8)
    of_gradient = gradient_noise_multiplier(private)
    assert (of_gradient**-2 + (2 * 0.8) ** -2) ** -0.5 == pytest.approx(1.1)
    plain = C("norm", **NORM, scope="sample", noise=1.1)
    trials = trials_of([plain, private])
    records = engine.train(trials).records
    spent = dict(zip(records["id"], records["epsilon"], strict=True))
    assert spent[trials[0].id] == spent[trials[1].id] > 0


def test_a_trial_has_a_threshold_of_its_own_whatever_its_neighbours():
    arms = [adaptive(1.1, quantile=0.3, noise=2.0), adaptive(quantile=0.3)]
    trials = trials_of(arms, seeds=(1, 2), steps=12)
    together = engine.train(trials)
    for trial in trials:
        alone = engine.train([trial])
        for column in ("train/loss", "grad_norm/post"):
            np.testing.assert_array_equal(steps_of(alone, trial)[column], steps_of(together, trial)[column])
