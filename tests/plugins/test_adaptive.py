"""What rules that remember owe, found through the registry, and what single ones are by their papers' numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipbench import engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine.clipping.rule import initial_state
from clipbench.plugins import registry
from clipbench.plugins.registry import Plugin
from tests.gradients import ELEMENTS, Engine

NAN, INF = math.nan, math.inf
RULES = {name: rule for name, rule in registry.catalogue("strategy").items() if rule.facts["init"]}
# Short, so that a few norms go through all that a rule does.
SHORT = {"window": 4, "warmup": 2, "patience": 3}

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
norms = st.one_of(
    st.integers(-20, 15).map(lambda exponent: 10.0**exponent),
    st.floats(0.5, 2.0, width=32),
    st.sampled_from([0.0, NAN, INF]),
)
courses = st.lists(st.tuples(norms, norms), min_size=1, max_size=12)


class Course:
    """A rule on one place of some lanes, step by step."""

    def __init__(self, rule: Plugin, threshold: float, lanes: int, dtype: torch.dtype, **options: Any) -> None:
        self.rule = rule
        defaults = {name: option.default for name, option in rule.options.items()}
        self.options = defaults | options | {"threshold": torch.full((lanes, 1), threshold, dtype=dtype)}
        self.state = initial_state(rule.facts["init"], self.options, self.options["threshold"])
        self.step = 0

    def __call__(self, n: Sequence[float]) -> Tensor:
        """What the gradient's norm is multiplied with; 0 where the step is refused."""
        self.step += 1
        norm = self.options["threshold"].new_tensor(n).unsqueeze(1)
        known = {"n": norm, "model_n": norm, "m": norm, "w": norm, "state": dict(self.state), "step": self.step}
        before = {name: tensor.clone() for name, tensor in self.state.items()}
        *result, changed = self.rule.function(**{name: known[name] for name in self.rule.given}, **self.options)
        assert all(torch.equal(self.state[name], before[name]) for name in before), "it changed its state in place"
        assert {name: t.shape for name, t in changed.items()} == {name: t.shape for name, t in before.items()}
        self.state = changed
        return result[0].to(norm.dtype).squeeze(1)


def course(name: str, threshold: float, dtype: torch.dtype = torch.float64, lanes: int = 1, **options: Any) -> Course:
    return Course(RULES[name], threshold, lanes, dtype, **options)


def shortened(rule: Plugin) -> dict[str, int]:
    return {name: size for name, size in SHORT.items() if name in rule.options}


def middle(rule: Plugin) -> float:
    return math.sqrt(math.prod(rule.facts["search"]))


# The contract


@every_rule
@settings(max_examples=60)
@given(drawn=courses)
def test_the_state_stays_finite_for_any_gradients(rule, drawn):
    run = Course(rule, middle(rule), 2, torch.float32, **shortened(rule))
    for n in drawn:
        coefficient = run(n)
        assert all(tensor.isfinite().all() for tensor in run.state.values()), run.state
        for norm, factor in zip(n, coefficient.tolist(), strict=True):
            assert not math.isfinite(norm) or 0 <= factor <= 1


@every_rule
@settings(max_examples=40)
@given(drawn=courses)
def test_lanes_are_independent(rule, drawn):
    together = Course(rule, middle(rule), 2, torch.float32, **shortened(rule))
    alone = [Course(rule, middle(rule), 1, torch.float32, **shortened(rule)) for _ in range(2)]
    for n in drawn:
        both = together(n)
        for lane, run in enumerate(alone):
            torch.testing.assert_close(both[lane : lane + 1], run(n[lane : lane + 1]), rtol=0, atol=0, equal_nan=True)


@every_rule
@settings(max_examples=40)
@given(drawn=courses)
def test_no_gradients_lock_a_rule_forever(rule, drawn):
    """Once the norms are usual and steady, a step gets through: refused for no longer than `patience`, and never 0."""
    run = Course(rule, middle(rule), 1, torch.float32, **shortened(rule))
    for n in drawn:
        run(n[:1])
    after = [float(run([1.0])) for _ in range(50)]
    assert max(after[:5]) > 0
    assert min(after[-3:]) > 0 or rule.facts["refuses"]


@every_rule
@pytest.mark.parametrize("bad", [NAN, INF, 0.0])
def test_a_norm_that_is_zero_or_not_finite_leaves_the_state_unchanged(rule, bad):
    spoilt, clean = (Course(rule, middle(rule), 1, torch.float64, **shortened(rule)) for _ in range(2))
    for n in (1.0, 1.1, 0.9, 3.0, 1.2, 0.5):
        assert float(spoilt([n])) == float(clean([n]))
        spoilt([bad])


@every_rule
def test_equal_norms_pass(rule):
    run = Course(rule, middle(rule), 1, torch.float32)
    assert all(float(run([0.7])) == 1 for _ in range(300))


@every_rule
def test_a_gradient_that_is_not_finite_is_never_made_to_look_finite(rule):
    run = Course(rule, middle(rule), 2, torch.float32, **shortened(rule))
    for _ in range(5):
        run([1.0, 1.0])
    coefficient = run([NAN, INF])
    after = (
        torch.where(coefficient > 0, 1.0, coefficient)
        if rule.facts["refuses"]
        else coefficient * torch.tensor([NAN, INF])
    )
    assert (after == 0).all() if rule.facts["refuses"] else after.isnan().all()


# Single rules


def limits(run: Course, norms: Sequence[float]) -> list[float]:
    """The norm after each step; where nothing was clipped, the norm itself."""
    return [n * float(run([n])) for n in norms]


def test_autoclip_follows_the_percentile_of_all_norms_so_far():
    """pseeth/autoclip by running it: thresholds 1, 1.1, 1.2, 1.3, 1.4 at the 10th percentile."""
    assert limits(course("autoclip", 10.0), [1, 2, 3, 4, 100]) == pytest.approx([1, 1.1, 1.2, 1.3, 1.4], rel=1e-12)


@settings(max_examples=50)
@given(
    drawn=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), percent=st.floats(0, 100), window=st.integers(1, 9)
)
def test_autoclip_is_numpys_percentile_of_its_window(drawn, percent, window):
    run = course("autoclip", percent, window=window)
    for step, n in enumerate(drawn):
        expected = min(n, np.percentile(drawn[max(0, step + 1 - window) : step + 1], percent))
        assert n * float(run([n])) == pytest.approx(expected, rel=1e-9)


def test_zclip_has_the_mean_variance_and_threshold_of_the_reference():
    """bluorion-com/ZClip: after 25 warm-up norms mean .996, variance .009984; a spike of 10 has z 90.1112."""
    run = course("zclip", 2.5)
    assert limits(run, [0.9, 1.1] * 12 + [0.9]) == [0.9, 1.1] * 12 + [0.9]
    mean, variance = float(run.state["mean"]), float(run.state["variance"])
    assert mean == pytest.approx(0.996, rel=1e-12) and variance == pytest.approx(0.009984, rel=1e-12)
    assert (10 - mean) / (math.sqrt(variance) + 1e-6) == pytest.approx(90.1112, abs=1e-4)
    [after] = limits(run, [10.0])
    assert after == pytest.approx(1.002930, abs=1e-6)
    assert float(run.state["mean"]) == pytest.approx(0.97 * 0.996 + 0.03 * after, rel=1e-12)


def test_adagc_scales_to_the_smallest_norm_of_its_start_and_follows_from_there():
    run = course("adagc", 1.05, warmup=3)
    assert limits(run, [4.0, 0.5, 0.8]) == [1.0, 0.5, 0.8]
    assert limits(run, [2.0, 2.0]) == pytest.approx([1.05 * 0.5, 1.05 * (0.98 * 0.5 + 0.02 * 1.05 * 0.5)])


def test_norm_growth_lets_a_norm_grow_by_one_percent_a_step():
    after = limits(course("norm_growth", 1.01), [1.0, 5.0, 5.0, 0.5, 5.0])
    assert after == pytest.approx([1.0, 1.01, 1.01**2, 0.5, 0.505], rel=1e-7)


def test_mean_plus_k_std_leaves_the_present_norm_out_and_feeds_back_the_raw_one():
    drawn = [1.0, 2.0, 3.0, 10.0, 20.0]
    after = limits(course("mean_plus_k_std", 2.0, warmup=3), drawn)
    first, second = (np.mean(drawn[:k]) + 2 * np.std(drawn[:k]) for k in (3, 4))
    assert after == pytest.approx([1, 2, 3, first, second])


def test_ema_norm_starts_at_the_first_norm_and_feeds_back_the_clipped_one():
    after = limits(course("ema_norm", 2.0, beta=0.5), [1.0, 10.0, 10.0])
    assert after == pytest.approx([1.0, 2.0, 3.0])


def test_skip_sigma_refuses_a_spike_and_gets_used_to_a_new_level():
    run = course("skip_sigma", 6.0)
    usual = [1.0, 1.1] * 40
    assert limits(run, usual) == usual
    assert float(run([100.0])) == 0 and float(run([NAN])) == 0 and float(run([1.05])) == 1
    assert sum(float(run([100.0])) == 0 for _ in range(100)) < 10


def test_skip_sigma_loses_patience():
    run = course("skip_sigma", 2.0, warmup=4, patience=3)
    limits(run, [1.0, 1.1, 1.0, 1.1])
    assert [float(run([10.0**k])) for k in range(1, 10)] == [0, 0, 0, 1, 0, 0, 0, 1, 0]


# A rule of the user


def weights_after(steps: int, rule: str, **options: Any) -> list[np.ndarray]:
    """The clipped gradient of the last of equal steps, of two lanes."""
    train = Training(epochs=None, steps=steps, loss=Component.of("output"), dtype="float64", save_weights=True)
    model = Component.of("tests.toys:thrown", low=-1.0, high=1.0)
    clip = Component.of(rule, exclude=(), **options)
    trials = [Trial(None, model, Component.of("tests.toys:Copies", lr=1.0), train, clip, seed) for seed in (0, 1)]
    weights = engine.train(trials).weights
    return [np.concatenate([np.ravel(part) for part in weights[trial.id]]) for trial in trials]


def test_a_users_rule_may_have_a_state_of_elements():
    """U-Clip carries over what it cut off: after three steps of g the third is clip(3 g - what is through)."""
    for one, third in zip(weights_after(1, "none"), weights_after(3, "tests.toys:u_clip", threshold=0.1), strict=True):
        rest = np.zeros_like(one)
        for _ in range(3):
            through = np.clip(one + rest, -0.1, 0.1)
            rest = one + rest - through
        np.testing.assert_allclose(third, through, rtol=1e-12)


def test_an_own_rule_may_remember_a_statistic_as_it_is_and_is_told_the_step():
    arm = Component.of("tests.toys:by_history")
    run = Engine([arm, arm], steps=4)
    coefficients = []
    for step in range(1, 5):
        gradients = np.outer([1.0, 10.0], np.ones(ELEMENTS)) * step / np.sqrt(ELEMENTS)
        coefficients.append(run.step(gradients)[:, 0] / gradients[:, 0])
    np.testing.assert_allclose(coefficients, [[0.0, 0.0], [0.0, 0.0], [1.0, 10.0], [2.0, 20.0]], rtol=1e-5)
    assert run.told()["clip/fired"].tolist() == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
