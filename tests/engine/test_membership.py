"""Losses that tell who was trained on: counted by hand, and seen where a network learns noise by heart."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from clipbench import engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine.membership_inference import advantage

C = Component.of


def test_advantage_is_counted_by_hand():
    assert advantage(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.25, 0.5, 0.6, 0.8])) == pytest.approx(0.5)


def test_equal_losses_and_larger_losses_of_members_have_no_advantage():
    losses = np.array([0.3, 0.1, 0.2])
    assert advantage(losses, losses) == 0.0
    assert advantage(losses + 1, losses) == 0.0


def test_losses_of_members_below_all_others_have_advantage_one():
    assert advantage(np.array([0.1, 0.2]), np.array([0.3, 0.4])) == 1.0


def test_advantage_is_the_one_sided_distance_of_kolmogorov_and_smirnov():
    draw = np.random.default_rng(0)
    members, others = draw.normal(size=50), draw.normal(0.4, size=70)
    assert advantage(members, others) == pytest.approx(ks_2samp(members, others, alternative="greater").statistic)


def test_the_advantage_of_losses_that_are_not_finite_is_nan():
    assert np.isnan(advantage(np.array([0.1, np.nan]), np.array([0.3])))


def test_a_network_that_memorizes_noise_has_a_large_advantage():
    data = C("noise_regression", samples=60, features=30, seed=0)
    few, many = (
        Trial(data, C("mlp", hidden=[64], activation="relu", bias=True), C("adam", lr=0.01), train, C("none"), 0)
        for train in (Training(epochs=n, loss=C("mse"), metrics=(C("mse"),)) for n in (1, 200))
    )
    little, much = (float(engine.train([t]).records["membership_advantage"][0]) for t in (few, many))
    assert much > 0.8
    assert much > little + 0.3


def test_an_objective_without_data_has_no_advantage():
    train = Training(epochs=None, steps=3, loss=C("output"))
    trial = Trial(None, C("tests.toys:power", start=1.0), C("sgd", lr=0.1), train, C("none"), 0)
    assert "membership_advantage" not in engine.train([trial]).records
