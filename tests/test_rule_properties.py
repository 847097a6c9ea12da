"""What holds for every rule whatever gradients come, carried out by the engine: sizes from 1e-20 to 1e15, zeros, NaN and
infinities in every order, at every place, in float32 and float64. The rules are the registry's, so none is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clipbench import registry
from clipbench.registry import Plugin
from clipbench.trial import Component
from tests.gradients import ELEMENTS, PLACES, Engine

EVERY = registry.catalogue("strategy")
RULES = {name: rule for name, rule in EVERY.items() if rule.facts["on"] == "gradient"}
ON_WEIGHTS = [name for name in EVERY if name not in RULES]
SCALING = [name for name, rule in RULES.items() if rule.facts["per"] in PLACES]
REMEMBERING = [name for name, rule in RULES.items() if rule.facts["init"]]
REFUSING = [name for name, rule in RULES.items() if rule.facts["refuses"]]
SHORT = {"window": 4, "warmup": 2, "patience": 3}
# Whose threshold is in the unit of the gradient; of all others it is a ratio, a count or a percentage.
IN_UNITS = {
    *("norm", "tensor_norm", "normalize", "rms", "soft_norm", "skip", "drop"),
    *("value", "zero", "one_sided", "sign_step", "tanh"),
}
HARD = ("norm", "tensor_norm", "normalize", "agc", "rms", "value", "zero", "one_sided", "skip", "drop")
ALWAYS = ("normalize",)  # fire whatever the gradient is
# How large a place may be afterwards: of the threshold, the gradient there, the weights there and the whole gradient.
BOUNDED: dict[str, Callable[..., float]] = {
    **dict.fromkeys(("norm", "tensor_norm", "normalize", "soft_norm"), lambda c, g, w, whole: c),
    "rms": lambda c, g, w, whole: c * math.sqrt(len(g)),
    "agc": lambda c, g, w, whole: c * max(float(np.linalg.norm(w)), 1e-3),
    **dict.fromkeys(("value", "tanh", "sign_step", "zero"), lambda c, g, w, whole: c),
    "relative": lambda c, g, w, whole: min(c, 1.0) * float(np.abs(whole).max()),
}
KINDS = ("of one size", "of many sizes", "mostly zeros", "zeros", "a nan", "an infinity", "nothing but nan")
FINITE = KINDS[:4]
TOLERANCE = {"float32": 2e-5, "float64": 1e-9}

every_rule = pytest.mark.parametrize("name", RULES)
# Each claim is looked at a few times, and many times where there is time.
often = pytest.mark.parametrize("examples", [5, pytest.param(100, marks=pytest.mark.slow)], ids=["quick", "slow"])
Drawn = tuple[str, int, list[tuple[str, int]]]


def holds(claim: Callable[[Drawn], None], examples: int, kinds: Sequence[str] = KINDS, longest: int = 5) -> None:
    """Of every course: a type, the seed of the elements, and for each step a kind of gradient and its power of ten."""
    each = st.tuples(st.sampled_from(kinds), st.integers(-20, 15))
    course = st.tuples(
        st.sampled_from(["float32", "float64"]), st.integers(0, 2**16), st.lists(each, min_size=1, max_size=longest)
    )
    phases = (Phase.explicit, Phase.generate, Phase.shrink)
    quiet = (HealthCheck.too_slow, HealthCheck.data_too_large)
    chosen = settings(max_examples=examples, deadline=None, suppress_health_check=quiet, phases=phases)
    chosen(given(course)(claim))()


def gradients(drawn: Drawn, lanes: int) -> Iterator[np.ndarray]:
    """For each step [lanes, elements], all of them numbers of float32; each lane begins elsewhere in the course."""
    _, seed, kinds = drawn
    draw = np.random.default_rng(seed)
    for step in range(len(kinds)):
        chosen = [kinds[(step + lane) % len(kinds)] for lane in range(lanes)]
        yield np.stack([one_gradient(draw, *kind) for kind in chosen])


def one_gradient(draw: np.random.Generator, kind: str, exponent: int) -> np.ndarray:
    g = draw.uniform(-1, 1, ELEMENTS) * 10.0**exponent
    if kind == "of many sizes":
        g = draw.uniform(-1, 1, ELEMENTS) * 10 ** draw.uniform(-20, 15, ELEMENTS)
    elif kind == "mostly zeros":
        g[draw.random(ELEMENTS) < 0.8] = 0
    elif kind == "zeros":
        g[:] = 0
    elif kind == "nothing but nan":
        g[:] = math.nan
    elif kind != "of one size":
        g[draw.integers(ELEMENTS)] = math.nan if kind == "a nan" else draw.choice([-math.inf, math.inf])
    return g.astype(np.float32).astype(np.float64)


def arms_of(rule: Plugin, **changes: Any) -> list[Component]:
    """The rule at every place, with and without a part left alone, at thresholds of every size."""
    options = {name: option.default for name, option in rule.options.items()}
    options |= {name: size for name, size in SHORT.items() if name in options}
    return [
        Component.of(rule.name, **options | limit | place | {"exclude": exclude} | changes)
        for limit in limits_of(rule)
        for place in ([{"per": per} for per in PLACES] if rule.name in SCALING else [{}])
        for exclude in ([(), ("bias",)] if limit in limits_of(rule)[3:4] else [()])
    ]


def limits_of(rule: Plugin) -> list[dict[str, Any]]:
    if "threshold" not in rule.options:
        return [{}]
    low, high = rule.facts["search"]
    loose = [] if rule.facts["loose"] is None else [rule.facts["loose"]]
    return [{"threshold": c} for c in (0.0, 1e-30, low, math.sqrt(low * high), high, 1e12, *loose, None)]


def is_off(arm: Component) -> bool:
    return arm.name == "none" or arm.as_dict().get("threshold", 0.0) is None


def refuses_all(arm: Component) -> bool:
    return not is_off(arm) and not does_nothing(arm) and not arm["exclude"]


def does_nothing(arm: Component) -> bool:
    loose = RULES[arm.name].facts["loose"]
    return loose is not None and arm.as_dict().get("threshold", 0.0) >= loose


def places_of(arm: Component) -> list[slice]:
    """Where the rule looks, in a flat gradient."""
    return [slice(*place) for place in PLACES[str(arm.as_dict().get("per") or "model")]]


def engine_of(arms: Sequence[Component], drawn: Drawn) -> Engine:
    dtype, seed, kinds = drawn
    draw = np.random.default_rng(seed)  # weights of every size, and zeros
    weights = draw.standard_normal(ELEMENTS) * 10 ** draw.uniform(-6, 3, ELEMENTS) * (draw.random(ELEMENTS) < 0.8)
    return Engine(arms, dtype, steps=len(kinds), weights=weights.astype(np.float32))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=True)


@pytest.fixture(autouse=True)
def as_a_worker():
    """One thread, and numbers too small to be normal are zero."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


# Whatever comes


@often
@every_rule
def test_what_is_finite_stays_finite_whatever_came_before(name, examples):
    arms = arms_of(RULES[name])

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        for g in gradients(drawn, len(arms)):
            after = engine.step(g)
            spoilt = np.isfinite(g).all(1) & ~np.isfinite(after).all(1)
            assert [arms[lane].arm for lane in np.flatnonzero(spoilt)] == []
            assert np.isfinite(engine.weights_now()[np.isfinite(g).all(1)]).all()

    holds(claim, examples)


@often
@pytest.mark.parametrize("name", REFUSING)
def test_who_refuses_lets_nothing_through_that_is_not_finite(name, examples):
    arms = [arm for arm in arms_of(RULES[name]) if not is_off(arm) and not does_nothing(arm) and not arm["exclude"]]

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        assert all(np.isfinite(engine.step(g)).all() for g in gradients(drawn, len(arms)))

    holds(claim, examples)


@often
@every_rule
def test_what_is_zero_stays_zero(name, examples):
    arms = arms_of(RULES[name])

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        for g in gradients(drawn, len(arms)):
            after = engine.step(g)
            assert (after[(g == 0).all(1)] == 0).all()
            if name != "centralize":  # what it moves is a row as a whole
                finite = np.isfinite(g).all(1)
                assert (after[finite][g[finite] == 0] == 0).all()

    holds(claim, examples)


@often
@every_rule
def test_without_a_threshold_or_at_its_loose_one_a_rule_changes_no_bit(name, examples):
    arms = [arm for arm in arms_of(RULES[name]) if is_off(arm) or does_nothing(arm)]
    if not arms:
        pytest.skip("it always acts")

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        for g in gradients(drawn, len(arms)):
            for arm, before, after in zip(arms, g, engine.step(g), strict=True):
                assert same(before, after) or not (is_off(arm) or np.isfinite(before).all()), arm.arm

    holds(claim, examples)


@often
@every_rule
def test_lanes_do_not_know_of_one_another(name, examples):
    """To the last bit, whatever is in the other lanes: what is not finite, or so large that it needs care."""
    arms = arms_of(RULES[name])
    few = [0, len(arms) // 2, -1]

    def claim(drawn: Drawn) -> None:
        together, alone = engine_of(arms, drawn), engine_of([arms[lane] for lane in few], drawn)
        for g in gradients(drawn, len(arms)):
            assert same(together.step(g)[few], alone.step(g[few]))
        told, told_alone = together.told(), alone.told()
        assert all(same(told[column][:, few], told_alone[column]) for column in told if column != "train/loss")

    holds(claim, examples)


# What is told


@often
@every_rule
def test_what_is_told_of_a_step_is_what_happened_to_the_gradient(name, examples):
    """Against float64, in which no square overflows; float32's own squares would, from 1.8e19, and vanish below 1e-19."""
    arms = arms_of(RULES[name])

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        before = list(gradients(drawn, len(arms)))
        after = [engine.step(g).astype(np.float64) for g in before]
        told = engine.told()
        for step, (old, new) in enumerate(zip(before, after, strict=True)):
            compare({column: values[step] for column, values in told.items()}, old, new, RULES[name], drawn[0])

    holds(claim, examples, FINITE, longest=3)


def compare(told: dict[str, np.ndarray], old: np.ndarray, new: np.ndarray, rule: Plugin, dtype: str) -> None:
    near, least = TOLERANCE[dtype], 1e9 * np.finfo(dtype).tiny
    pre, post = np.linalg.norm(old, axis=1), np.linalg.norm(new, axis=1)
    np.testing.assert_allclose(told["grad_norm/pre"], pre, rtol=near)
    np.testing.assert_allclose(told["grad_norm/post"], post, rtol=near, atol=least)
    np.testing.assert_allclose(told["grad_max/pre"], np.abs(old).max(1), rtol=near)
    both, cosine = post > least, (pre == 0).astype(float)
    cosine[both] = (old[both] / pre[both, None] * (new[both] / post[both, None])).sum(1)
    rest = ~both & (post > 0)  # too small for digits
    np.testing.assert_allclose(told["clip/cosine"][~rest], cosine[~rest], atol=near)
    assert ((told["clip/fired"] > 0) == (told["clip/fraction"] > 0)).all()
    if rule.facts["per"] == "element":
        np.testing.assert_allclose(told["clip/fraction"], (old != new).mean(1), rtol=1e-6)
    unchanged = (old == new).all(1) & (pre > 0)
    assert rule.name in ALWAYS or not told["clip/fired"][unchanged].any()


# Sizes, directions, units


@often
@pytest.mark.parametrize("name", BOUNDED)
def test_what_is_left_is_as_large_as_the_rule_says(name, examples):
    arms = [arm for arm in arms_of(RULES[name]) if not is_off(arm) and not arm["exclude"]]

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        for g in gradients(drawn, len(arms)):
            for arm, before, after in zip(arms, g, engine.step(g).astype(np.float64), strict=True):
                for place in places_of(arm) if np.isfinite(before).all() else ():
                    bound = BOUNDED[name](float(arm["threshold"]), before[place], engine.weights[place], before)
                    measure = np.linalg.norm if name in SCALING else lambda v: np.abs(v).max()
                    assert measure(after[place]) <= bound * (1 + 1e-5), arm.arm

    holds(claim, examples)


@often
@pytest.mark.parametrize("name", SCALING)
def test_a_rule_that_scales_keeps_the_direction_of_every_place(name, examples):
    arms = [arm for arm in arms_of(RULES[name]) if not arm["exclude"]]

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        for g in gradients(drawn, len(arms)):
            for arm, before, after in zip(arms, g, engine.step(g).astype(np.float64), strict=True):
                for place in places_of(arm):
                    direction = before[place] / max(np.abs(before[place]).max(), 1e-30)
                    size = np.abs(after[place]).max()
                    np.testing.assert_allclose(after[place], size * direction, rtol=1e-5, atol=1e-30, err_msg=arm.arm)

    holds(claim, examples, FINITE)
