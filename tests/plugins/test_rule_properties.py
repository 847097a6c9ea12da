"""What holds for every rule whatever gradients come, carried out by the engine: sizes from 1e-20 to 1e15, zeros, NaN and
infinities in every order, at every place, in float32 and float64. The rules are the registry's, so none is left out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clipbench.core.trial import Component
from clipbench.engine.clipping import lane_order
from clipbench.plugins import registry
from clipbench.plugins.registry import Plugin
from tests.gradients import ELEMENTS, OF_COLUMNS, PLACES, Engine

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
HARD = ("norm", "tensor_norm", "agc", "rms", "value", "zero", "one_sided", "skip", "drop")
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
OPTIMIZERS = {"momentum": Component.of("sgd", lr=0.1, momentum=0.9), "adam": Component.of("adam", lr=0.1)}
TOLERANCE = {"float32": 2e-5, "float64": 1e-9}

every_rule = pytest.mark.parametrize("name", RULES)
# Each claim is looked at a few times, and many times where there is time.
often = pytest.mark.parametrize("examples", [3, pytest.param(100, marks=pytest.mark.slow)], ids=["quick", "slow"])
Drawn = tuple[str, int, list[tuple[str, int]]]


def holds(claim: Callable[[Drawn], None], examples: int, kinds: Sequence[str] = KINDS, longest: int = 5) -> None:
    """Of every course: a type, the seed of the elements, and for each step a kind of gradient and its power of ten."""
    each = st.tuples(st.sampled_from(kinds), st.integers(-20, 15))
    course = st.tuples(
        st.sampled_from(["float32", "float64"]), st.integers(0, 2**16), st.lists(each, min_size=1, max_size=longest)
    )
    phases = (Phase.explicit, Phase.generate, Phase.shrink)
    quiet = (HealthCheck.too_slow, HealthCheck.data_too_large)
    chosen = settings(max_examples=examples, suppress_health_check=quiet, phases=phases)
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
    """The rule at every place, with and without a part left alone, at thresholds of every size; what shares a program
    is side by side."""
    options = {name: option.default for name, option in rule.options.items()}
    options |= {name: size for name, size in SHORT.items() if name in options}
    limits = limits_of(rule)
    arms = [
        Component.of(rule.name, **options | limit | place | {"exclude": exclude} | changes)
        for limit in limits
        for place in (
            [{"per": per} for per in (*PLACES, "column")] if EVERY[rule.name].facts["per"] in PLACES else [{}]
        )
        for exclude in ([(), ("bias",)] if limit in (limits[3:4] or limits) else [()])
    ]
    return sorted(arms, key=lambda arm: (is_off(arm), lane_order.grouping_key(arm)))


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
    loose = EVERY[arm.name].facts["loose"]
    return loose is not None and arm.as_dict().get("threshold", 0.0) >= loose


def places_of(arm: Component) -> list[slice] | list[np.ndarray]:
    """Where the rule looks, in a flat gradient."""
    per = str(arm.as_dict().get("per") or "model")
    return OF_COLUMNS if per == "column" else [slice(*place) for place in PLACES[per]]


MOST_STEPS = 32  # of a claim: engines of one length share their programs


def engine_of(arms: Sequence[Component], drawn: Drawn) -> Engine:
    dtype, seed, _ = drawn
    draw = np.random.default_rng(seed)  # weights of every size, and zeros
    weights = draw.standard_normal(ELEMENTS) * 10 ** draw.uniform(-6, 3, ELEMENTS) * (draw.random(ELEMENTS) < 0.8)
    return Engine(arms, dtype, steps=MOST_STEPS, weights=weights.astype(np.float32))


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=True)


@pytest.fixture(autouse=True)
def as_a_worker():
    """One thread, and numbers too small to be normal are zero."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


# Gradients of any kind


@often
@every_rule
def test_finite_gradients_stay_finite_after_any_others(name, examples):
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
def test_rules_that_refuse_pass_only_finite_gradients(name, examples):
    arms = arms_of(RULES[name])
    refusing = [refuses_all(arm) for arm in arms]

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        assert all(np.isfinite(engine.step(g)[refusing]).all() for g in gradients(drawn, len(arms)))

    holds(claim, examples)


@often
@every_rule
def test_zero_gradients_stay_zero(name, examples):
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
    arms = arms_of(RULES[name])
    quiet = [lane for lane, arm in enumerate(arms) if is_off(arm) or does_nothing(arm)]
    if not quiet:
        pytest.skip("it always acts")

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        for before in gradients(drawn, len(arms)):
            after = engine.step(before)
            for lane in quiet:
                kept = is_off(arms[lane]) or np.isfinite(before[lane]).all()
                assert same(before[lane], after[lane]) or not kept, arms[lane].arm

    holds(claim, examples)


@often
@every_rule
def test_lanes_are_independent(name, examples):
    """To the last bit, whatever is in the other lanes: what is not finite, or so large that it needs care."""
    arms = arms_of(RULES[name])
    few = [*(next(lane for lane, arm in enumerate(arms) if bool(arm["exclude"]) == some) for some in (False, True)), -1]

    def claim(drawn: Drawn) -> None:
        together, alone = engine_of(arms, drawn), engine_of([arms[lane] for lane in few], drawn)
        for g in gradients(drawn, len(arms)):
            assert same(together.step(g)[few], alone.step(g[few]))
        told, told_alone = together.told(), alone.told()
        assert all(same(told[column][:, few], told_alone[column]) for column in told if column != "train/loss")

    holds(claim, examples)


@every_rule
def test_a_rule_is_compiled_whatever_gradients_the_training_before_has_left(name):
    """Its program is tried on the tensors of a workspace; squares of numbers so small are no numbers of float32."""
    draw, arm = np.random.default_rng(0), next(arm for arm in arms_of(RULES[name]) if not is_off(arm) or name == "none")
    Engine([Component.of("none")] * 2, steps=MOST_STEPS + 1).step(draw.uniform(-1e-18, 1e-18, (2, ELEMENTS)))
    assert Engine([arm] * 2, steps=MOST_STEPS + 1).training.note == ""


# Telemetry


@often
@every_rule
def test_telemetry_describes_what_happened_to_the_gradient(name, examples):
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
    rest = ~both & ((post > 0) | (told["grad_norm/post"] > 0))  # too small for digits
    np.testing.assert_allclose(told["clip/cosine"][~rest], cosine[~rest], atol=near)
    assert ((told["clip/fired"] > 0) == (told["clip/fraction"] > 0)).all()
    if rule.facts["per"] == "element":
        np.testing.assert_allclose(told["clip/fraction"], (old != new).mean(1), rtol=1e-6)
    unchanged = (old == new).all(1) & (pre > 0)
    assert rule.name in ALWAYS or not told["clip/fired"][unchanged].any()


# Sizes, directions, units


@often
@pytest.mark.parametrize("name", BOUNDED)
def test_the_clipped_gradient_is_within_the_bound_of_the_rule(name, examples):
    arms = arms_of(RULES[name])
    bounded = [not is_off(arm) and not arm["exclude"] for arm in arms]

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        for g in gradients(drawn, len(arms)):
            each = zip(arms, g, engine.step(g).astype(np.float64), strict=True)
            for arm, before, after in itertools.compress(each, bounded):
                for place in places_of(arm) if np.isfinite(before).all() else ():
                    bound = BOUNDED[name](float(arm["threshold"]), before[place], engine.weights[place], before)
                    measure = np.linalg.norm if name in SCALING else lambda v: np.abs(v).max()
                    assert measure(after[place]) <= bound * (1 + 1e-5), arm.arm

    holds(claim, examples)


@often
@pytest.mark.parametrize("name", SCALING)
def test_a_rule_that_scales_keeps_the_direction_of_every_place(name, examples):
    arms = arms_of(RULES[name])
    scaled = [not arm["exclude"] for arm in arms]

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        for g in gradients(drawn, len(arms)):
            each = zip(arms, g, engine.step(g).astype(np.float64), strict=True)
            for arm, before, after in itertools.compress(each, scaled):
                for place in places_of(arm):
                    direction = before[place] / max(np.abs(before[place]).max(), 1e-30)
                    size = np.abs(after[place]).max()
                    np.testing.assert_allclose(after[place], size * direction, rtol=1e-5, atol=1e-30, err_msg=arm.arm)

    holds(claim, examples, FINITE)


@often
@pytest.mark.parametrize("name", [name for name in RULES if name not in ("sign", "adagc")])
def test_a_gradient_in_another_unit_gives_the_same_in_that_unit(name, examples):
    """With its threshold, where that has a unit. The 1e-6 beside norms has one too: it shows where norms are small."""
    unit = 2.0**20
    arms = arms_of(RULES[name])
    scaled = [_in_unit(arm, unit) for arm in arms]
    rate = unit if name == "agc" else 1.0  # its threshold is a share of the weights, and so has theirs
    usual = [(arm.as_dict().get("threshold", 1.0) or 0.0) > 1e-3 for arm in arms]

    def claim(drawn: Drawn) -> None:
        one, other = engine_of(arms, drawn), engine_of(scaled, drawn)
        other.weights = one.weights * rate
        for g in gradients(drawn, len(arms)):
            g = _of_usual_size(g)
            expected = one.step(g).astype(np.float64) * unit
            np.testing.assert_allclose(other.step(g * unit)[usual], expected[usual], rtol=1e-3, atol=1e-6)

    holds(claim, examples, ("of one size", "mostly zeros"))


def _of_usual_size(g: np.ndarray) -> np.ndarray:
    """Rows whose largest element is between 1e3 and 1e8."""
    largest = np.abs(g).max(1, keepdims=True)
    largest[largest == 0] = 1.0
    return g / largest * 10.0 ** (3 + np.abs(np.log10(largest).round()) % 6)


def _in_unit(arm: Component, unit: float) -> Component:
    mine = {"threshold"} if arm.name in IN_UNITS else {"eps"} if arm.name == "agc" else set()
    return Component.of(arm.name, **{k: float(v) * unit if k in mine and v is not None else v for k, v in arm.options})


@often
@pytest.mark.parametrize("name", HARD)
def test_clipping_twice_changes_nothing_more(name, examples):
    """But for the 1e-6 beside the norm, which is a thousandth of the smallest threshold here."""
    arms = arms_of(RULES[name])
    usual = [not arm["exclude"] and arm["threshold"] != 1e-30 for arm in arms]

    def claim(drawn: Drawn) -> None:
        engine = engine_of(arms, drawn)
        for g in gradients(drawn, len(arms)):
            once = engine.step(g)
            twice = engine.step(once.astype(np.float64))
            np.testing.assert_allclose(twice[usual], once[usual], rtol=1e-3, atol=1e-30)

    holds(claim, examples, FINITE, longest=2)


# State


@often
@pytest.mark.parametrize("name", REMEMBERING)
def test_norms_that_are_zero_or_not_finite_are_not_stored(name, examples):
    """Nothing but NaN, or zeros, between two gradients changes nothing of what comes after."""
    if "patience" in RULES[name].options:
        pytest.skip("it counts the steps that it refuses")
    arms = arms_of(RULES[name])

    def claim(drawn: Drawn) -> None:
        dtype, seed, kinds = drawn
        longer = (dtype, seed, [*kinds, *kinds])
        spoilt, clean = engine_of(arms, longer), engine_of(arms, longer)
        for number, g in enumerate(gradients(drawn, len(arms))):
            assert same(spoilt.step(g), clean.step(g))
            spoilt.step(np.full_like(g, (math.nan, 0.0)[number % 2]))

    holds(claim, examples, FINITE)


@often
@pytest.mark.parametrize("name", REMEMBERING)
def test_no_gradients_lock_a_rule_forever(name, examples):
    """Once gradients are usual and steady a step gets through at every place, refused `patience` times at most."""
    middle = math.sqrt(math.prod(RULES[name].facts["search"]))
    arms = arms_of(RULES[name])
    usual = [not arm["exclude"] and arm["threshold"] == middle for arm in arms]

    def claim(drawn: Drawn) -> None:
        dtype, seed, kinds = drawn
        engine = engine_of(arms, (dtype, seed, [*kinds, *[kinds[0]] * 8]))
        for g in gradients(drawn, len(arms)):
            engine.step(g)
        steady = np.tile(np.random.default_rng(seed).uniform(0.5, 1.0, ELEMENTS), (len(arms), 1))
        after = [engine.step(steady)[usual] for _ in range(8)]
        assert all(np.isfinite(g).all() for g in after)
        assert (np.max(after[:5], axis=0) > 0).all()

    holds(claim, examples)


@often
@pytest.mark.parametrize("name", ["skip", "skip_sigma", "skip_nonfinite"])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_refused_step_leaves_weights_momentum_and_step_counts_as_they_were(name, optimizer, examples):
    """So that what follows is as if there had been none."""
    chosen = OPTIMIZERS[optimizer]
    low, high = RULES[name].facts["search"] or (1.0, 1.0)
    limit = {"threshold": math.sqrt(low * high)} if "threshold" in RULES[name].options else {}
    options = {option: spec.default for option, spec in RULES[name].options.items()} | limit | {"patience": 100}
    arm = Component.of(name, **{k: v for k, v in options.items() if k in RULES[name].options}, exclude=())

    def claim(drawn: Drawn) -> None:
        dtype, seed, _ = drawn
        draw = np.random.default_rng(seed)
        calm = [draw.uniform(-0.1, 0.1, (2, ELEMENTS)) for _ in range(4)]
        with_one, without = (Engine([arm] * 2, dtype, steps=9, optimizer=chosen) for _ in range(2))
        for g in calm:
            without.step(g)
        for g, bad in zip(calm, (math.nan, math.inf, math.nan, math.nan), strict=True):
            before = with_one.weights_now()
            with_one.step(np.where(draw.random((2, ELEMENTS)) < 0.5, bad, g))
            assert same(with_one.weights_now(), before)
            with_one.step(g)
        assert same(with_one.weights_now(), without.weights_now())

    holds(claim, examples, ("zeros",), longest=1)


def test_a_dropped_gradient_still_lets_momentum_move_the_weights():
    arm = Component.of("drop", threshold=1.0, exclude=())
    engine = Engine([arm] * 2, "float64", steps=2, optimizer=OPTIMIZERS["momentum"])
    small = np.full((2, ELEMENTS), 0.1)
    engine.step(small)
    before = engine.weights_now()
    assert (engine.step(small * 1e6) == 0).all()
    np.testing.assert_allclose(engine.weights_now(), before - 0.1 * 0.9 * 0.1, rtol=1e-12)


# On the weights


@often
@pytest.mark.parametrize("name", ON_WEIGHTS)
def test_a_rule_on_weights_keeps_them_finite_and_reports_an_unclipped_gradient(name, examples):
    arms, plain = arms_of(EVERY[name]), Component.of("none")

    def claim(drawn: Drawn) -> None:
        engine, free = engine_of(arms, drawn), engine_of([plain] * 2, drawn)
        for g in gradients(drawn, len(arms)):
            g = np.tile(g[:1], (len(arms), 1))
            assert same(engine.step(g), g.astype(drawn[0]))
            free.step(g[:2])
            assert np.isfinite(engine.weights_now()).all()
            off = [is_off(arm) or does_nothing(arm) for arm in arms]
            assert (engine.weights_now()[off] == free.weights_now()[0]).all()
        told = engine.told()
        assert same(told["grad_norm/pre"], told["grad_norm/post"])
        assert (told["clip/cosine"] == 1).all()

    holds(claim, examples, FINITE, longest=3)


def test_every_rule_is_covered():
    assert set(RULES) | set(ON_WEIGHTS) == set(EVERY)
    assert {*SCALING, *IN_UNITS, *HARD, *BOUNDED, *REMEMBERING, *REFUSING} <= set(RULES)
