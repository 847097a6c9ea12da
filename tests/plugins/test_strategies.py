"""What every clipping rule owes, found through the registry, and what single rules are by their mathematics."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipbench import engine
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine.clipping.rule import initial_state
from clipbench.plugins import decorators, registry
from clipbench.plugins.registry import Plugin
from tests import toys

RULES = registry.catalogue("strategy")
LOOSE = [name for name, rule in RULES.items() if rule.facts["loose"] is not None]
LIMITED = [
    name for name, rule in RULES.items() if "threshold" in rule.options and not rule.facts["init"] and name != "halve"
]
PLACES = ("model", "tensor", "unit", "column")
# Rules without a flat part: however small the gradient, they change it.
CHANGES_ALL = ("soft_norm", "tanh", "sign", "centralize")

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
# Gradients and thresholds of a few lanes, at every size that float32 squares.
sizes = st.integers(-20, 15).map(lambda exponent: 10.0**exponent)
elements = st.floats(-1.0, 1.0, width=32)
lanes = st.lists(st.tuples(st.lists(elements, min_size=6, max_size=6), sizes, st.floats(0, 1)), min_size=1, max_size=4)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def carry_out(rule: Plugin, g: Tensor, threshold: Tensor | None, w: Tensor | None = None, p: float = 2.0) -> Tensor:
    """The gradient after a rule whose only place is the whole of `g` [lanes, elements]."""
    n = torch.linalg.vector_norm(g, p, dim=1, keepdim=True)
    m = g.abs().amax(1, keepdim=True)
    w = torch.linalg.vector_norm(torch.ones_like(g) if w is None else w, p, dim=1, keepdim=True)
    size, row_mean = n.new_tensor([g.shape[1]]), g.mean(1, keepdim=True).expand_as(g)
    known = {"g": g, "n": n, "m": m, "w": w, "model_n": n, "model_m": m, "size": size, "row_mean": row_mean}
    options: dict[str, Any] = {"threshold": threshold} if "threshold" in rule.options else {}
    if "p" in rule.options:
        options["p"] = p
    known |= {"state": first_state(rule, n), "step": 1}
    if rule.facts["on"] == "weights":  # they take the place of the gradient
        known |= {"new": g, "old": g, "w": n}
    result = rule.function(**{name: known[name] for name in rule.given}, **options)
    if rule.facts["init"]:
        *result, _ = result
        result = result[0] if len(result) == 1 else result
    if rule.facts["per"] == "element":
        return result
    if rule.facts["per"] == "step":
        return torch.where(result, g, 0.0)
    coefficient, fired = result
    assert fired.dtype == torch.bool and fired.shape == coefficient.shape == n.shape
    return g * coefficient


def first_state(rule: Plugin, places: Tensor) -> dict[str, Tensor]:
    options = {name: option.default for name, option in rule.options.items()}
    return initial_state(rule.facts["init"] or {}, options, places)


def tensors(drawn: Sequence[tuple[list[float], float, float]], rule: Plugin) -> tuple[Tensor, Tensor]:
    """Gradients and thresholds; these from 0 over the rule's range."""
    g = torch.tensor([[x * size for x in row] for row, size, _ in drawn])
    low, high = rule.facts["search"] or (1.0, 1.0)
    limits = [[0.0 if share == 0 else low * (high / low) ** share] for _, _, share in drawn]
    return g, torch.tensor(limits)


# The contract


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rule_keeps_shape_and_type_and_touches_no_input(rule, dtype):
    torch.manual_seed(0)
    g, w, c = (
        torch.randn(3, 7, dtype=dtype),
        torch.randn(3, 7, dtype=dtype),
        torch.full((3, 1), 0.1, dtype=dtype),
    )
    before = [g.clone(), w.clone(), c.clone()]
    after = carry_out(rule, g, c, w)
    assert after.shape == g.shape and after.dtype == dtype
    assert all(torch.equal(now, then) for now, then in zip((g, w, c), before, strict=True))


@every_rule
@settings(max_examples=60)
@given(drawn=lanes)
def test_finite_gradients_stay_finite_and_zero_stays_zero(rule, drawn):
    g, c = tensors(drawn, rule)
    after = carry_out(rule, g, c)
    assert after.isfinite().all()
    assert rule.name == "centralize" or (after[g == 0] == 0).all()  # what it moves is a row as a whole
    assert (carry_out(rule, torch.zeros_like(g), c) == 0).all()


@every_rule
@settings(max_examples=40)
@given(drawn=lanes)
def test_many_lanes_at_once_are_as_one_at_a_time(rule, drawn):
    g, c = tensors(drawn, rule)
    spoilt = torch.cat([g, torch.full((1, 6), math.nan), torch.full((1, 6), math.inf)])
    together = carry_out(rule, spoilt, torch.cat([c, c[:1], c[:1]]))
    for lane in range(len(g)):
        alone = carry_out(rule, g[lane : lane + 1], c[lane : lane + 1])
        torch.testing.assert_close(together[lane], alone[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", LOOSE)
@settings(max_examples=60)
@given(drawn=lanes)
def test_at_its_loose_threshold_a_rule_does_nothing_bit_for_bit(name, drawn):
    rule = RULES[name]
    g, c = tensors(drawn, rule)
    loose = torch.full_like(c, rule.facts["loose"])
    assert torch.equal(carry_out(rule, g, loose), g)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.facts["clamps"]])
@settings(max_examples=60)
@given(drawn=lanes)
def test_a_rule_that_clamps_does_so_to_what_it_makes_of_infinity(name, drawn):
    rule = RULES[name]
    g, c = tensors(drawn, rule)
    assert rule.facts["per"] == "element" and not rule.facts["init"]
    given = {"g": g, "new": g, "model_m": g.abs().amax(1, keepdim=True)}
    given = {argument: given[argument] for argument in rule.given}
    bounds = given | {"new" if "new" in given else "g": torch.tensor([[-math.inf, math.inf]]).repeat(len(g), 1)}
    low, high = rule.function(**bounds, threshold=c).unbind(1)
    assert torch.equal(
        rule.function(**given, threshold=c), torch.stack([x.clamp(a, b) for x, a, b in zip(g, low, high, strict=True)])
    )


@pytest.mark.parametrize("name", LIMITED)
def test_threshold_zero_clips_everything_away(name):
    g = torch.tensor([[1e-12, 1.0, 1e12]])
    assert (carry_out(RULES[name], g, torch.zeros(1, 1)) == 0).all()


@every_rule
def test_a_rule_says_what_it_does_its_formula_and_where_it_is_from(rule):
    summary, _, rest = rule.doc.partition("\n\n")
    assert summary.endswith(".") and len(rule.summary) < 160
    formula = re.split(r"\s{2,}", rest.splitlines()[0])
    assert formula[0], f"{rule.name}: no formula"
    if rule.name != "none":
        assert len(formula) == 2 and len(formula[1]) > 10, f"{rule.name}: formula, two spaces, reference"


@every_rule
def test_a_search_range_is_one_that_a_search_can_use(rule):
    assert (rule.facts["search"] is not None) == ("threshold" in rule.options)
    low, high = rule.facts["search"] or (1.0, 2.0)
    assert 0 < low < high < math.inf
    assert rule.facts["loose"] is None or rule.name == "none" or rule.facts["loose"] >= high


@every_rule
def test_a_rule_is_declared_as_the_engine_reads_it(rule):
    assert rule.facts["per"] in decorators.PLACES
    assert rule.given, "a rule that looks at nothing"
    for option in rule.options.values():
        written = inspect.signature(rule.function).parameters[option.name].annotation
        assert written is not inspect.Parameter.empty, f"{rule.name}: {option.name} has no type"
    assert inspect.signature(rule.function).return_annotation is not inspect.Signature.empty
    # Only who refuses a step whole may meet a gradient that is not finite and go on.
    bad = torch.tensor([[math.nan, 1.0]])
    survives = bool((carry_out(rule, bad, torch.full((1, 1), 0.5)) == 0).all())
    assert not rule.facts["refuses"] or survives


# What single rules make of gradients that are not finite, or whose squares are not

NAN, INF = math.nan, math.inf
EDGES = {"nan": [NAN, 1.0], "inf": [INF, 1.0], "-inf": [-INF, 1.0], "huge": [1e20, 1e20]}
SCALED_AWAY = {"nan": [NAN, NAN], "inf": [NAN, 0.0], "-inf": [NAN, 0.0], "huge": [0.0, 0.0]}
REFUSED = {edge: [0.0, 0.0] for edge in EDGES}
AT_ONE = {  # threshold 1
    "none": EDGES,
    "norm": SCALED_AWAY,
    "tensor_norm": SCALED_AWAY,
    "normalize": SCALED_AWAY,
    "agc": SCALED_AWAY,
    "value": {"nan": [NAN, 1.0], "inf": [1.0, 1.0], "-inf": [-1.0, 1.0], "huge": [1.0, 1.0]},
    "one_sided": {"nan": [NAN, 1.0], "inf": [1.0, 1.0], "-inf": [-INF, 1.0], "huge": [1.0, 1.0]},
    "zero": {"nan": [0.0, 1.0], "inf": [0.0, 1.0], "-inf": [0.0, 1.0], "huge": [0.0, 0.0]},
    "sign_step": {"nan": [0.0, 0.0], "inf": [1.0, 0.0], "-inf": [-1.0, 0.0], "huge": [1.0, 1.0]},
    "relative": {"nan": [NAN, NAN], "inf": [INF, 1.0], "-inf": [-INF, 1.0], "huge": [1e20, 1e20]},
    "rms": SCALED_AWAY,
    "soft_norm": SCALED_AWAY,
    "tanh": {"nan": [NAN, math.tanh(1)], "inf": [1.0, math.tanh(1)], "-inf": [-1.0, math.tanh(1)], "huge": [1.0, 1.0]},
    "sign": {"nan": [0.0, 1.0], "inf": [1.0, 1.0], "-inf": [-1.0, 1.0], "huge": [1.0, 1.0]},
    "centralize": {"nan": [NAN, NAN], "inf": [NAN, -INF], "-inf": [NAN, INF], "huge": [0.0, 0.0]},
    "skip_nonfinite": REFUSED,
    "skip": REFUSED,
    "drop": REFUSED,
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", AT_ONE)
def test_gradients_that_are_not_finite_come_out_as_they_do_elsewhere(name, edge):
    """The table of torch 2.13 and optax 0.2.8, by running them; huge: finite, but its float32 norm is not."""
    after = carry_out(RULES[name], torch.tensor([EDGES[edge]]), torch.ones(1, 1))
    torch.testing.assert_close(after, torch.tensor([AT_ONE[name][edge]]), equal_nan=True)


# Single rules


def drawn_gradient(lanes: int = 5, elements: int = 9, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(lanes, elements, dtype=torch.float64) * 10.0 ** torch.arange(-2, lanes - 2).unsqueeze(1)


def at(name: str, g: Tensor, threshold: float, p: float = 2.0, w: Tensor | None = None) -> Tensor:
    return carry_out(RULES[name], g, torch.full((len(g), 1), threshold, dtype=g.dtype), w, p)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("name", ["norm", "tensor_norm"])
def test_norm_rules_bound_the_norm_and_keep_the_direction(name, p):
    g = drawn_gradient()
    after = at(name, g, 0.7, p)
    norm = torch.linalg.vector_norm(after, p, dim=1)
    assert (norm <= 0.7).all()
    big = torch.linalg.vector_norm(g, p, dim=1) > 0.7
    assert 0 < big.sum() < len(g)
    torch.testing.assert_close(norm[big], torch.full_like(norm[big], 0.7), rtol=1e-5, atol=0)
    assert torch.equal(after[~big], g[~big])
    torch.testing.assert_close(torch.cosine_similarity(after, g), torch.ones(len(g), dtype=g.dtype))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_norm_is_torchs_clip_grad_norm(p):
    for row in drawn_gradient():
        parameter = torch.nn.Parameter(torch.zeros_like(row))
        parameter.grad = row.clone()
        torch.nn.utils.clip_grad_norm_([parameter], 0.3, norm_type=p)
        torch.testing.assert_close(at("norm", row[None], 0.3, p)[0], parameter.grad, rtol=1e-14, atol=0)


@settings(max_examples=60)
@given(drawn=lanes)
def test_value_is_torchs_clip_grad_value(drawn):
    g, c = tensors(drawn, RULES["value"])
    after = carry_out(RULES["value"], g, c)
    for lane, row in enumerate(g):
        parameter = torch.nn.Parameter(torch.zeros_like(row))
        parameter.grad = row.clone()
        torch.nn.utils.clip_grad_value_([parameter], float(c[lane]))
        assert torch.equal(after[lane], parameter.grad)


def test_normalize_gives_every_gradient_the_same_norm():
    norms = at("normalize", drawn_gradient(), 0.7).norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, 0.7), rtol=1e-4, atol=0)


def test_agc_bounds_the_gradient_by_a_share_of_the_weights_and_lets_zero_weights_move():
    g = drawn_gradient()
    w = torch.ones_like(g)
    w[-1] = 0
    after = at("agc", g, 0.01, w=w).norm(dim=1)
    assert (after[:-1] <= 0.01 * 3 + 1e-12).all()  # nine ones have the norm 3
    assert float(after[-1]) == pytest.approx(0.01 * 1e-3)
    assert torch.equal(at("agc", g[:1], 0.5, w=w[:1]), g[:1])


def test_elementwise_rules_are_their_formulas():
    g = torch.tensor([[-3.0, -0.5, 0.0, 0.5, 1.0, 4.0]])
    expected = {
        "value": [-1.0, -0.5, 0.0, 0.5, 1.0, 1.0],
        "one_sided": [-3.0, -0.5, 0.0, 0.5, 1.0, 1.0],
        "zero": [0.0, -0.5, 0.0, 0.5, 1.0, 0.0],
        "sign_step": [-1.0, 0.0, 0.0, 0.0, 0.0, 1.0],
    }
    for name, after in expected.items():
        assert torch.equal(at(name, g, 1.0), torch.tensor([after])), name
    assert torch.equal(at("relative", g, 0.25), torch.tensor([[-1.0, -0.5, 0.0, 0.5, 1.0, 1.0]]))


@settings(max_examples=60)
@given(drawn=lanes, lower=st.floats(-1, 0, width=32), upper=st.floats(0, 1, width=32))
def test_value_with_ends_of_its_own_is_a_clamp_between_them(drawn, lower, upper):
    g, c = tensors(drawn, RULES["value"])
    value, off = RULES["value"].function, torch.full_like(c, math.inf)
    assert torch.equal(value(g, c, lower, upper), g.clamp(lower, upper))
    assert torch.equal(value(g, off, lower=lower), g.clamp(min=lower))
    assert torch.equal(value(g, off, upper=upper), g.clamp(max=upper))
    assert torch.equal(value(g, c, lower=lower), torch.minimum(g, c).clamp(min=lower))


def test_rms_bounds_the_root_mean_square():
    g = drawn_gradient()
    after = at("rms", g, 0.3)
    before = g.square().mean(1).sqrt()
    assert 0 < (before > 0.3).sum() < len(g)
    torch.testing.assert_close(after.square().mean(1).sqrt(), before.clamp(max=0.3), rtol=1e-12, atol=0)
    # optax 0.2.8, clip_by_block_rms(1.0) on [3, 4]
    torch.testing.assert_close(at("rms", torch.tensor([[3.0, 4.0]]), 1.0), torch.tensor([[0.8485281, 1.1313709]]))


def test_soft_norm_is_within_a_factor_of_two_of_norm_and_tanh_is_below_value():
    g = drawn_gradient()
    soft, hard = at("soft_norm", g, 0.7).norm(dim=1), at("norm", g, 0.7).norm(dim=1)
    assert (soft <= hard * (1 + 1e-5)).all() and (soft >= hard / 2).all()
    torch.testing.assert_close(at("soft_norm", torch.tensor([[3.0, 4.0]]), 5.0), torch.tensor([[1.5, 2.0]]))
    assert (at("tanh", g, 0.7).abs() <= at("value", g, 0.7).abs()).all()
    torch.testing.assert_close(at("tanh", torch.tensor([[0.7, -7.0]]), 0.7), 0.7 * torch.tensor([[1.0, -10.0]]).tanh())


def test_skip_nonfinite_looks_at_nothing_but_finiteness():
    g = torch.tensor([[1e15, -1e15], [0.0, 1e-30], [NAN, 0.0], [INF, 0.0]])
    kept = RULES["skip_nonfinite"].function(g.norm(dim=1, keepdim=True))
    assert kept.flatten().tolist() == [True, True, False, False]


@pytest.mark.parametrize("name", ["skip", "drop"])
def test_a_step_is_refused_over_the_threshold_and_kept_at_it(name):
    g = torch.tensor([[3.0, 4.0], [3.0, 4.001], [0.0, 0.0]])
    assert torch.equal(at(name, g, 5.0), torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize(
    "name", ["norm", "tensor_norm", "agc", "normalize", "value", "zero", "one_sided", "skip", "drop"]
)
def test_clipping_twice_changes_nothing_more(name):
    g = drawn_gradient()
    once = at(name, g, 0.5)
    torch.testing.assert_close(at(name, once, 0.5), once, rtol=1e-4 if name == "normalize" else 3e-6, atol=0)
    assert not torch.equal(once, g)


@pytest.mark.parametrize("name", [name for name in LIMITED if name != "relative"])
def test_gradient_and_threshold_in_another_unit_give_the_same_in_that_unit(name):
    g, k = drawn_gradient()[2:], 1024.0  # the 1e-6 in the norm rules has a unit: small norms would show it
    torch.testing.assert_close(at(name, g * k, 0.5 * k), at(name, g, 0.5) * k, rtol=1e-5, atol=0)


def test_relative_does_not_know_units():
    g = drawn_gradient()
    torch.testing.assert_close(at("relative", g * 1024.0, 0.5), at("relative", g, 0.5) * 1024.0, rtol=0, atol=0)


# Other libraries' numbers. Made once with timm 1.0.31 (timm/utils/agc.py: adaptive_clip_grad, clip_factor 0.05) and
# optax 0.2.8 (adaptive_grad_clip(0.05), clip_by_global_norm(0.7), normalize_by_update_norm(0.7), clip(0.25), the
# tensors transposed to the layout in which its units are columns) on the weights and gradients below, in float32.

WEIGHTS = {
    "filters": [[[[-0.4, 0.3], [-0.1, -0.5]]], [[[0.2, -0.2], [0.5, 0.1]]]],
    "matrix": [[-0.1, 0.25, 0.05], [-0.15, 0.2, 0.0]],
    "bias": [-0.06, 0.08, 0.0],
    "zero": [[0.0, 0.0], [0.0, 0.0]],
}
GRADIENTS = {
    "filters": [[[[-0.3, -1.5], [0.6, -0.6]]], [[[0.0015, 0.0003], [-0.0009, 0.0012]]]],
    "matrix": [[0.2, -0.6, 0.8], [0.0, -0.8, 0.6]],
    "bias": [0.0, -0.016, 0.012],
    "zero": [[1.5, -0.5], [-2.5, 1.0]],
}
AGC = [  # timm and optax agree to the last digit
    *(-0.0061237249, -0.030618623, 0.01224745, -0.01224745, 0.0015, 0.0003, -0.0009, 0.0012),
    *(0.0026854305, -0.0080562914, 0.010741722, 0.0, -0.010000001, 0.0075000003),
    *(0.0, -0.0040000007, 0.0030000005),
    *(4.7434165e-05, -1.5811389e-05, -4.642384e-05, 1.8569535e-05),
]
AGC_SUMS = [  # timm, norm_type=1
    *(-0.0065000006, -0.032500003, 0.013000001, -0.013000001, 0.0015, 0.0003, -0.0009, 0.0012),
    *(0.0025000002, -0.0075000008, 0.010000001, 0.0, -0.010000001, 0.0075000003),
    *(0.0, -0.0040000002, 0.003),
    *(3.7500002e-05, -1.2500001e-05, -3.5714289e-05, 1.4285715e-05),
]
AGC_LARGEST = [  # timm, norm_type=inf
    *(-0.0050000004, -0.025000002, 0.010000001, -0.010000001, 0.0015, 0.0003, -0.0009, 0.0012),
    *(0.003125, -0.0093750004, 0.0125, 0.0, -0.010000001, 0.0075000008),
    *(0.0, -0.0040000002, 0.003),
    *(5.0000002e-05, -1.6666667e-05, -5.0000002e-05, 2.0000001e-05),
]
AGC_COLUMNS = [  # optax with matrices as torch has them; the filters, which have one channel, by hand
    *(
        -0.0079056882,
        -0.039528441,
        0.015811376,
        -0.015811376,
        3.9528441e-05,
        7.9056882e-06,
        -2.3717065e-05,
        3.1622753e-05,
    ),
    *(0.0090138791, -0.0096046869, 0.0020000001, 0.0, -0.012806249, 0.0015000001),
    *(0.0, -0.0040000007, 0.0030000005),
    *(2.5724788e-05, -2.236068e-05, -4.287465e-05, 4.4721361e-05),
]
GLOBAL_NORM = [
    *(-0.054494184, -0.27247092, 0.10898837, -0.10898837),
    *(0.0002724709, 5.4494187e-05, -0.00016348256, 0.00021797675),
    *(0.036329456, -0.10898837, 0.14531782, 0.0, -0.14531782, 0.10898837),
    *(0.0, -0.0029063565, 0.0021797672),
    *(0.27247092, -0.090823643, -0.45411819, 0.18164729),
]
CLIP = [
    *(-0.25, -0.25, 0.25, -0.25, 0.0015, 0.0003, -0.0009, 0.0012),
    *(0.2, -0.25, 0.25, 0.0, -0.25, 0.25),
    *(0.0, -0.016, 0.012),
    *(0.25, -0.25, -0.25, 0.25),
]
CENTRALIZED = [  # by hand: each row or filter less its mean, the bias as it is
    *(0.15, -1.05, 1.05, -0.15, 0.000975, -0.000225, -0.001425, 0.000675),
    *(0.0666666667, -0.7333333333, 0.6666666667, 0.0666666667, -0.7333333333, 0.6666666667),
    *(0.0, -0.016, 0.012),
    *(1.0, -1.0, -1.75, 1.75),
]
THEIRS = {
    "agc": (Component.of("agc", threshold=0.05, eps=1e-3, per="unit", exclude=()), AGC),
    "agc p=1": (Component.of("agc", threshold=0.05, eps=1e-3, p=1.0, per="unit", exclude=()), AGC_SUMS),
    "agc p=inf": (Component.of("agc", threshold=0.05, eps=1e-3, p=math.inf, per="unit", exclude=()), AGC_LARGEST),
    "agc per column": (Component.of("agc", threshold=0.05, eps=1e-3, per="column", exclude=()), AGC_COLUMNS),
    "norm": (Component.of("norm", threshold=0.7, p=2.0, per="model", exclude=()), GLOBAL_NORM),
    "normalize": (Component.of("normalize", threshold=0.7, per="model", exclude=()), GLOBAL_NORM),
    "value": (Component.of("value", threshold=0.25, exclude=()), CLIP),
    "centralize": (Component.of("centralize", exclude=()), CENTRALIZED),
}


def given_numbers() -> torch.nn.Module:
    """Weights and gradients as above."""
    return toys.with_gradients(WEIGHTS, GRADIENTS)


@pytest.mark.parametrize("name", THEIRS)
def test_other_libraries_clip_to_the_same_numbers(name):
    arm, expected = THEIRS[name]
    [after] = gradients_after([arm], model=Component.of("tests.plugins.test_strategies:given_numbers"))[
        0
    ].weights.values()
    np.testing.assert_allclose(after, expected, rtol=2e-6)


# Carried out by the engine, in many lanes


def gradients_after(
    arms: Sequence[Component],
    seeds: Sequence[int] = (0,),
    model: Component | None = None,
    dtype: str = "float32",
) -> tuple[Records, list[Trial]]:
    """One step of every arm whose weights afterwards are the clipped gradient."""
    model = model or Component.of("tests.toys:thrown", low=-3.0, high=1.0)
    train = Training(epochs=None, steps=1, loss=Component.of("output"), dtype=dtype, save_weights=True)
    copies = Component.of("tests.toys:Copies", lr=1.0)
    trials = [Trial(None, model, copies, train, arm, seed) for seed in seeds for arm in arms]
    return engine.train(trials), trials


def arms_of(rule: Plugin) -> list[Component]:
    """The rule at every place, with and without a part left alone, over its range."""
    options = {name: option.default for name, option in rule.options.items()}
    scaling = rule.facts["per"] in PLACES
    low, high = rule.facts["search"] or (1.0, 1.0)
    limits = [0.0, low, math.sqrt(low * high), high] if "threshold" in rule.options else [None]
    return [
        Component.of(
            rule.name,
            **options | ({} if limit is None else {"threshold": limit}) | ({"per": per} if scaling else {}),
            exclude=exclude,
        )
        for limit in limits
        for per in (PLACES if scaling else (None,))
        for exclude in ((), ("bias", "dead"))
    ]


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES.values() if rule.facts["on"] == "gradient"], ids=lambda r: r.name
)
def test_telemetry_says_what_happened_to_the_gradient(rule):
    arms = arms_of(rule)
    records, trials = gradients_after(arms, seeds=range(3), dtype="float64")
    rows = {trial.id: index for index, trial in enumerate(trials)}
    steps = {name: column[np.argsort([rows[i] for i in records.steps["id"]])] for name, column in records.steps.items()}
    for index, trial in enumerate(trials):
        measured = {name: column[index] for name, column in steps.items()}
        before = raw_gradient(trial)
        refused = rule.facts["per"] == "step" and measured["clip/fired"]
        after = np.zeros_like(before) if refused else records.weights[trial.id]
        pre, post = np.linalg.norm(before), np.linalg.norm(after)
        where = f"{trial.clip}"
        assert measured["grad_norm/pre"] == pytest.approx(pre), where
        assert measured["grad_max/pre"] == pytest.approx(np.abs(before).max()), where
        assert measured["grad_norm/post"] == pytest.approx(post, rel=1e-9, abs=1e-15), where
        cosine = float(before @ after / (pre * post)) if post else 0.0
        assert measured["clip/cosine"] == pytest.approx(cosine, abs=1e-9), where
        if rule.name in CHANGES_ALL:
            changed = after != before
            assert measured["clip/fired"] == bool(changed.any()), where
        # Nearly under the threshold the 1e-6 in the norm rules shows: no clipping, but for the last digits.
        else:
            changed = ~np.isclose(after, before, rtol=1e-2, atol=0)
            assert measured["clip/fired"] == (rule.name == "normalize" or bool(changed.any())), where
        if rule.facts["per"] == "element":
            assert measured["clip/fraction"] == pytest.approx(np.mean(after != before)), where
        assert bool(measured["clip/fraction"]) == bool(measured["clip/fired"]), where
        left_alone = left_alone_of(trial)
        if not refused:
            assert np.array_equal(after[left_alone], before[left_alone]), where


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES.values() if rule.facts["on"] == "weights"], ids=lambda r: r.name
)
def test_rules_on_weights_change_them_after_the_step_and_leave_the_gradient(rule):
    """The optimizer puts the gradient in the weights' place; the rule sees that as the new weights."""
    records, trials = gradients_after(arms_of(rule), seeds=range(3), dtype="float64")
    for trial in trials:
        mine = records.steps["id"] == trial.id
        [measured] = [{name: column[i] for name, column in records.steps.items()} for i in np.flatnonzero(mine)]
        before, after = raw_gradient(trial), records.weights[trial.id]
        assert measured["grad_norm/post"] == measured["grad_norm/pre"] == pytest.approx(np.linalg.norm(before))
        assert measured["clip/cosine"] == 1
        assert bool((after != before).any()) <= bool(measured["clip/fired"]) == bool(measured["clip/fraction"])
        if rule.facts["per"] == "element":
            assert measured["clip/fraction"] == pytest.approx(np.mean(after != before))
        left_alone = left_alone_of(trial)
        assert np.array_equal(after[left_alone], before[left_alone])


def test_the_weights_of_wgan_and_keras_and_of_halving_are_as_stated():
    torch.manual_seed(0)
    new, old, g = torch.randn(3, 1, 8).unbind()
    c = torch.tensor([[0.5]])
    assert torch.equal(RULES["weight_clamp"].function(new, c), new.clamp(-0.5, 0.5))
    coefficient, fired = RULES["max_norm"].function(torch.tensor([[0.0, 2.0, 4.0]]), torch.tensor([[2.0]]))
    torch.testing.assert_close(coefficient, torch.tensor([[1.0, 2 / (2 + 1e-7), 0.5]]))
    assert fired.tolist() == [[False, False, True]]
    assert torch.equal(RULES["halve"].function(new, old, g, c), torch.where(g.abs() > 0.5, -old / 2, new))


def raw_gradient(trial: Trial) -> np.ndarray:
    return np.concatenate([g.double().flatten().numpy() for g in thrown_tensors(trial).values()])


def thrown_tensors(trial: Trial) -> dict[str, Tensor]:
    torch.manual_seed(trial.seed)
    model = toys.thrown(**trial.model.as_dict())
    return {name: getattr(model, f"{name}_gradient") for name, _ in model.named_parameters()}


def left_alone_of(trial: Trial) -> np.ndarray:
    excluded = trial.clip.as_dict().get("exclude") or ()
    return np.concatenate([np.full(g.numel(), name in excluded) for name, g in thrown_tensors(trial).items()])


@pytest.mark.parametrize("low", [-22.0, -12.0, 0.0, 15.0])
def test_at_any_size_of_gradient_a_rule_that_does_nothing_says_so(low):
    """Squares of tiny norms underflow in float32: the cosine must not become 0 of it."""
    arms = [
        *(Component.of(name, threshold=1e18, p=2.0, per=per, exclude=()) for name in ["norm"] for per in PLACES),
        Component.of("agc", threshold=1e21, eps=1e-3, per="unit", exclude=()),
        *(Component.of(name, threshold=1e18, exclude=()) for name in ("value", "zero", "one_sided", "skip", "drop")),
        Component.of("norm", threshold=1e18, p=2.0, per="model", exclude=("bias",)),
        Component.of("value", threshold=1e18, exclude=("bias",)),
    ]
    model = Component.of("tests.toys:thrown", low=low, high=low + 1)
    records, trials = gradients_after(arms, seeds=range(2), model=model)
    clips = {trial.id: str(trial.clip) for trial in trials}
    for index, trial_id in enumerate(records.steps["id"]):
        measured = {name: column[index] for name, column in records.steps.items()}
        assert measured["clip/cosine"] == pytest.approx(1.0, abs=1e-6), clips[trial_id]
        assert measured["clip/fired"] == measured["clip/fraction"] == 0, clips[trial_id]
        assert measured["grad_norm/post"] == pytest.approx(measured["grad_norm/pre"], rel=1e-5, abs=0), clips[trial_id]


@pytest.mark.slow
def test_every_rule_in_one_chunk_is_as_in_a_chunk_of_its_own():
    arms = [arm for rule in RULES.values() for arm in arms_of(rule)]
    together, trials = gradients_after(arms, seeds=(0, 1))
    for rule in RULES.values():
        alone, mine = gradients_after(arms_of(rule), seeds=(0,))
        for trial in mine:
            np.testing.assert_array_equal(alone.weights[trial.id], together.weights[trial.id], err_msg=str(trial.clip))
    assert len(together.weights) == len({trial.id for trial in trials})
