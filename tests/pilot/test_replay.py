"""Rules on recorded statistics: with their memory, by compiled kernels as by one call a step."""

import math

import numpy as np
import pytest

from clipbench.pilot import replay
from clipbench.pilot.propose import candidates
from clipbench.pilot.replay import Replay
from clipbench.pilot.results import RecordedSteps
from clipbench.plugins import registry

REMEMBERING = [name for name, rule in registry.catalogue("strategy").items() if rule.facts["init"]]
THRESHOLDS = [1.05, 1.5, 3.0]


def recorded(steps, seed=0):
    """Statistics of two tensors of 3 and 5 elements."""
    tensors = np.exp(np.random.default_rng(seed).normal(size=(steps, 2)))
    whole = np.linalg.norm(tensors, axis=1, keepdims=True)
    places = {"model": dict.fromkeys("nmwv", whole), "tensor": dict.fromkeys("nmwv", tensors)}
    return RecordedSteps(places, {"model": np.array([8]), "tensor": np.array([3, 5])}, {})


def replayed(name, *seen):
    [rule] = candidates([name], "")
    return Replay(rule, registry.of("strategy", rule), seen, 2.0)


def one_call_a_step(replay):
    replay._compiled = lambda *_: None
    return replay


@pytest.mark.native
@pytest.mark.parametrize("name", REMEMBERING)
def test_kernels_give_the_effects_of_one_call_a_step(name):
    seen = recorded(300), recorded(170, seed=1)
    compiled = replayed(name, *seen)
    compiled._step_by_step = None  # is not called
    np.testing.assert_allclose(compiled(THRESHOLDS), one_call_a_step(replayed(name, *seen))(THRESHOLDS), rtol=1e-12)


@pytest.mark.parametrize("name", REMEMBERING)
def test_each_trial_has_a_memory_of_its_own(name):
    one, other = recorded(120), recorded(60, seed=1)
    fired = [replayed(name, *seen)([1.5])[0].fired for seen in ([one], [other], [one, other])]
    assert fired[2] == pytest.approx((120 * fired[0] + 60 * fired[1]) / 180)


def test_a_rule_that_forgets_has_the_same_effect_in_any_order():
    shuffled = recorded(200)
    for arrays in shuffled.places.values():
        arrays.update({kind: array[::-1].copy() for kind, array in arrays.items()})
    assert replayed("norm", recorded(200))([1.5]) == replayed("norm", shuffled)([1.5])


def test_what_is_left_is_the_coefficient_of_the_steps_that_are_clipped():
    seen = recorded(200)
    n = seen.places["model"]["n"][:, 0]
    [effect] = replayed("norm", seen)([2.0])
    assert effect.fired == (n > 2).mean()
    coefficients = np.sort(2 / (n[n > 2] + 1e-6))
    assert effect.left == pytest.approx(coefficients[(len(coefficients) - 1) // 2])
    [none] = replayed("norm", seen)([1e9])
    assert none.fired == 0 and math.isnan(none.left)


def test_of_a_very_long_training_stretches_are_replayed(monkeypatch):
    monkeypatch.setattr(replay, "REPLAYED", 400)
    monkeypatch.setattr(replay, "SEARCHED", 80)
    long = replayed("zclip", recorded(1000))
    assert [len(part["n"]) for part in long._seen] == [100] * 4
    assert [len(part["n"]) for part in long.sampled()._seen] == [20] * 16
    assert len(replayed("norm", recorded(1000))._seen) == 1
