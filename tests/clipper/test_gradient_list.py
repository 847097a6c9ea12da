"""Gradients in lists, which are changed in place by few operators, equal those that the engine's rules make anew."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import clipbench
from clipbench.clipper import list_layout
from clipbench.clipper.clipper import Clipper
from clipbench.core.trial import Component
from clipbench.engine.clipping.clip import Clip
from clipbench.engine.clipping.measured import Measured
from clipbench.engine.clipping.rule import Now, Rule
from clipbench.engine.clipping.threshold_groups import threshold_groups
from clipbench.plugins import registry

SHAPES = {
    "a.weight": (7, 5),
    "a.bias": (7,),
    "b.weight": (4, 3, 2, 2),
    "c": (),
    "b.bias": (4,),
    "d": (5, 7),
    "e": (7, 5),
}
RULES = registry.catalogue("strategy")
LIMITS = {"buffer": list_layout.SMALL, "both": 20, "alone": 1}
# Every rule on gradients at each of its places, at a threshold at which it changes some places and not others.
ARMS = {
    f"{name} {per}": {"threshold": threshold, "per": per}
    for name, threshold in {"norm": 1.0, "agc": 0.7, "rms": 0.9, "normalize": 0.1, "soft_norm": 1.0}.items()
    for per in ("model", "tensor", "unit", "column")
} | {
    name: {"threshold": 0.5} if "threshold" in rule.options else {}
    for name, rule in RULES.items()
    if rule.facts["per"] in ("element", "step") and rule.facts["on"] == "gradient" and not rule.facts["init"]
}


@pytest.fixture(params=LIMITS)
def limit(request, monkeypatch):
    monkeypatch.setattr(list_layout, "SMALL", LIMITS[request.param])


@pytest.fixture
def both(monkeypatch):
    monkeypatch.setattr(list_layout, "SMALL", LIMITS["both"])


def parameters(dtype: torch.dtype = torch.float32, absent: tuple[str, ...] = ()) -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    found = {name: nn.Parameter(torch.randn(shape).to(dtype)) for name, shape in SHAPES.items()}
    for number, (name, parameter) in enumerate(found.items()):
        if name not in absent:
            parameter.grad = (torch.randn(parameter.shape) * 0.5**number).to(dtype)
    return found


def expected(arm: Component, given: dict[str, nn.Parameter]) -> tuple[dict[str, Tensor], Tensor]:
    """The gradients and the statistics as the engine computes them."""
    zero = torch.zeros(())
    grads = {n: (zero.expand(p.shape) if p.grad is None else p.grad.float()).unsqueeze(0) for n, p in given.items()}
    weights = {name: p.detach().float().unsqueeze(0) for name, p in given.items()}
    measured, one = Measured(grads, exact=True), torch.ones(())
    now = Now(torch.full((1, 1), arm.as_dict().get("threshold", math.inf)), one, one)
    found = Clip(Rule(arm), threshold_groups(arm, given), True)(measured, Measured(weights, True), now, {})
    row = (measured.norm[0], found.post, measured.maximum[0], found.fired, found.fraction, found.cosine)
    return {name: t[0] for name, t in found.tensors.items()}, torch.cat(row)


def compare(name: str, given: dict[str, nn.Parameter], tolerance: float = 1e-6, **more: object) -> None:
    clippers = [
        Clipper(given.items(), name.split()[0], **ARMS[name], **more, measure=measure) for measure in (False, True)
    ]
    before = {key: None if p.grad is None else p.grad.clone() for key, p in given.items()}
    tensors, row = expected(clippers[0].arm, given)
    for clipper in clippers:
        for key, p in given.items():
            p.grad = None if before[key] is None else before[key].clone(memory_format=torch.preserve_format)
        info = clipper()
        for key, p in given.items():
            if p.grad is not None:
                close = tensors[key].to(p.dtype)
                torch.testing.assert_close(p.grad, close, rtol=tolerance, atol=tolerance * 0.1, equal_nan=True)
        torch.testing.assert_close(info.norm, row[0], equal_nan=True)
        assert bool(info.fired) == bool(row[3])
    torch.testing.assert_close(info.statistics, row, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", ARMS)
def test_a_rule_on_a_list_is_the_rule_of_the_engine(name, limit):
    compare(name, parameters())


@pytest.mark.parametrize("name", ARMS)
def test_in_groups_and_without_some_parameters(name, both):
    groups = {} if RULES[name.split()[0]].facts["per"] == "step" or "threshold" not in ARMS[name] else {
        "groups": {"*.weight": 2.0, "d": 0.5, "c": 1.0}
    }  # fmt: skip
    compare(name, parameters(), exclude=["a.bias"], **groups)


@pytest.mark.parametrize("name", ARMS)
def test_where_there_is_no_gradient_it_is_zero(name, both):
    compare(name, parameters(absent=("a.weight", "c")))


@pytest.mark.parametrize("name", [name for name in ARMS if "threshold" in ARMS[name] and not name.startswith("skip")])
def test_a_group_may_have_no_gradient_at_all(name, limit):
    compare(name, parameters(absent=("d", "c")), groups={"d": 0.5, "c": 2.0, "*": 1.0})


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_come_out_as_in_the_engine(name, bad, both):
    given = parameters()
    given["d"].grad[1, 2] = bad
    compare(name, given)


@pytest.mark.parametrize("name", ["norm model", "agc unit", "value", "tanh", "norm tensor", "relative"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(name, dtype, limit):
    compare(name, parameters(dtype), tolerance=8e-3)


@pytest.mark.parametrize("name", ["norm model", "agc unit", "norm column", "value", "centralize", "zero"])
def test_a_gradient_in_another_order_of_memory_is_clipped_the_same(name, limit):
    given = parameters()
    given["b.weight"].grad = given["b.weight"].grad.to(memory_format=torch.channels_last)
    given["d"].grad = given["d"].grad.t().contiguous().t()
    compare(name, given)


@pytest.mark.parametrize("name", ["norm", "agc", "value", "zero", "skip"])
def test_what_has_no_gradient_at_one_step_has_one_at_the_next(name, limit):
    given = parameters()
    clipper, ones = clipbench.Clipper(given.items(), f"{name}@0.1"), 0.0
    for absent in ((), ("d", "e"), ("a.bias",), ()):
        fresh = parameters(absent=absent)
        for key, p in given.items():
            p.grad = fresh[key].grad
        info = clipper()
        raw = torch.cat([p.grad.flatten() for p in parameters(absent=absent).values() if p.grad is not None])
        torch.testing.assert_close(info.norm, raw.norm())
        ones += float(info.fired)
    assert ones == 4


def test_parameters_of_several_types_are_clipped_together(limit):
    given = parameters()
    given["d"].data, given["e"].data = given["d"].data.bfloat16(), given["e"].data.half()
    given["d"].grad, given["e"].grad = torch.ones(5, 7, dtype=torch.bfloat16), torch.ones(7, 5, dtype=torch.float16)
    for arm in ("norm@0.1", "agc@0.01"):
        clipbench.Clipper(given.items(), arm)()
    assert (given["d"].grad.dtype, given["e"].grad.dtype) == (torch.bfloat16, torch.float16)
    norm = torch.stack([p.grad.float().norm() for p in given.values()]).norm()
    assert float(norm) < 0.1005
