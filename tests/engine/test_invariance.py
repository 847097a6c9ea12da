"""Operators that round the last elements of a tensor differently from the others are found by trying them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipbench.engine.compiler.invariance import UNROLLED, InvarianceCheck

torch.set_num_threads(1)


@pytest.mark.parametrize("function", [torch.sigmoid, F.silu, F.mish, F.softplus, F.elu, lambda x: x.abs() ** 1.7])
def test_kernels_with_two_formulas_are_named(function):
    with InvarianceCheck(3) as check:
        function(torch.randn(3, 5))
    assert len(check.position_dependent) == 1


@pytest.mark.parametrize("function", [torch.tanh, torch.exp, F.relu, lambda x: x / 3 + x * x, lambda x: x.clamp(max=1)])
def test_kernels_with_one_formula_are_not_named(function):
    with InvarianceCheck(3) as check:
        function(torch.randn(3, 5))
    assert not check.position_dependent


@pytest.mark.parametrize("function", [torch.sigmoid, torch.tanh, F.silu, torch.exp, F.relu])
def test_an_operator_is_named_exactly_where_lanes_alone_have_other_bits(function):
    """Which operators these are depends on the machine."""
    x = torch.randn(7, 501, generator=torch.Generator().manual_seed(0)) * 3
    with InvarianceCheck(7) as check:
        together = function(x)
    alone = torch.stack([function(lane) for lane in x])
    assert bool(check.position_dependent) == bool((together != alone).any())


@pytest.fixture(scope="module")
def operators():
    """Elementwise operators on any machine: one rounds what is left of its registers of 16 numbers up, one does not."""
    library = torch.library.Library("invariance_tests", "DEF")
    for name, rounds in (("rounds_the_rest", True), ("rounds_nothing", False)):
        library.define(f"{name}(Tensor x) -> Tensor", tags=(torch.Tag.pointwise,))

        def compute(x: torch.Tensor, rounds: bool = rounds) -> torch.Tensor:
            result = x.clone()
            rest = result.view(-1)[x.numel() - x.numel() % 16 :]
            if rounds:
                rest.copy_(rest.nextafter(torch.tensor(torch.inf)))
            return result

        library.impl(name, compute, "CPU")
    yield torch.ops.invariance_tests
    library._destroy()


def test_an_operator_that_rounds_the_rest_of_a_tensor_is_named(operators):
    with InvarianceCheck(3) as check:
        operators.rounds_the_rest(torch.randn(3, 5))
        operators.rounds_nothing(torch.randn(3, 5))
    assert check.position_dependent == {"invariance_tests.rounds_the_rest.default"}
    with InvarianceCheck(3) as check:
        operators.rounds_the_rest(torch.randn(3, UNROLLED))
    assert not check.position_dependent, "each lane fills whole registers"


@pytest.mark.parametrize(
    ("lanes", "shape", "steady"),
    [
        (3, (3, UNROLLED), True),
        (3, (3, 4, 2 * UNROLLED), True),
        (3, (3, UNROLLED // 2), False),
        (3, (3, UNROLLED + 1), False),
        (3, (4, UNROLLED), False),
    ],
)
def test_lanes_that_fill_whole_registers_do_not_depend_on_their_position(lanes, shape, steady):
    with InvarianceCheck(lanes) as check:
        torch.sigmoid(torch.randn(shape))
    assert check.position_dependent == (set() if steady else {"aten.sigmoid.default"})


def test_parts_of_rows_are_checked_with_their_strides():
    gates = torch.randn(3, 8, 3 * UNROLLED)
    with InvarianceCheck(3) as check:
        torch.sigmoid(gates[:, :, :UNROLLED])
        assert not check.position_dependent
        torch.sigmoid(gates[:, :, : UNROLLED + 4])
    assert check.position_dependent


def test_in_place_operators_are_tried_on_other_tensors():
    x, out = torch.ones(3, 5), torch.empty(3, 5)
    with InvarianceCheck(3) as check:
        x.sigmoid_()
        torch.sigmoid(x, out=out)
        x.mul_(2.0).addcdiv_(x, out, value=0.5)
    assert check.position_dependent == {"aten.sigmoid_.default", "aten.sigmoid.out"}
    assert torch.equal(out, torch.ones(3, 5).sigmoid().sigmoid())


def test_operators_that_draw_are_named_unless_they_have_a_generator():
    with InvarianceCheck(3) as check:
        torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
        assert not check.random
        state = torch.get_rng_state()
        torch.zeros(3, 5).bernoulli_(0.5)
    assert check.random and not check.position_dependent
    torch.set_rng_state(state)
    assert torch.equal(torch.zeros(3, 5).bernoulli_(0.5), torch.zeros(3, 5).bernoulli_(0.5, generator=_at(state)))


def _at(state: torch.Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def test_kernels_of_any_signature_are_tried():
    x = torch.randn(3, 5)
    with torch.inference_mode(), InvarianceCheck(3) as check:
        torch.frexp(x), torch.isnan(x), (x > 0) | (x < 1), torch.where(x > 0, x, 0.0), x.to(torch.int64) + 1
        torch.view_as_complex(torch.randn(3, 2)).abs(), torch.lerp(x, x, 0.3), x.fill_(3), x.copy_(x + 1)
    assert check.position_dependent <= {"aten.abs.default"}
