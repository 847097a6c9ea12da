"""bfloat16 values in compiled programs: real numbers that are rounded as PyTorch rounds them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clipbench.compiler.native_program import NativeProgram, Run, TensorAxes

pytestmark = pytest.mark.native

HALF = torch.bfloat16
LANES = 2


def run(function: Callable[..., Tensor], *given: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a compiled program and the function itself compute of each lane."""
    expected = torch.stack([function(*lane) for lane in zip(*given, strict=True)])
    results = torch.zeros_like(expected)
    inputs = [(tensor.clone(), TensorAxes()) for tensor in given]
    program = NativeProgram(lambda *lane: [function(*lane)], inputs, [(results, TensorAxes())])
    Run([program])(range(LANES))
    return results, expected


def numbers(*shape: int) -> Tensor:
    return torch.randn(LANES, *shape, generator=torch.Generator().manual_seed(3))


def test_every_kind_of_number_is_rounded_as_torch_does():
    kinds = [0.0, -0.0, 1.0, -1.5, 3e38, -3.4e38, float("inf"), -float("inf"), float("nan"), 1e-30, 2.0**-126]
    halfway = [(1 + odd / 128 + 1 / 256) * 2.0**power for odd in range(4) for power in (-20, 0, 20)]
    x = torch.cat([torch.tensor(kinds + halfway), 10 ** (20 * torch.randn(1000)).clamp(-1e38, 1e38)]).repeat(LANES, 1)
    results, expected = run(lambda x: x.to(HALF).to(torch.float32), x)
    torch.testing.assert_close(results, expected, rtol=0, atol=0, equal_nan=True)


def test_a_double_is_rounded_like_a_float():
    results, expected = run(lambda x: x.to(HALF).to(torch.float64), numbers(100).double())
    assert torch.equal(results, expected)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda a, b: a + b,
    "chain": lambda a, b: torch.tanh(a * b + a).exp() / 3,
    "mixed with float32": lambda a, b: a.float() * b + 1,
    "relu": lambda a, b: torch.relu(a - b),
    "moved": lambda a, b: torch.cat([a, b], 1).T[1:].clone(),
    "in place": lambda a, b: a.clone().add_(b).mul_(0.3),
    "in place of a part": lambda a, b: (
        torch.zeros_like(a).index_copy(0, torch.tensor([1]), b[:1]) + a.fill_diagonal_(2)
    ),
    "a constant": lambda a, b: a * torch.full((6,), 0.3, dtype=HALF) + torch.linspace(0, 1, 6, dtype=HALF),
    "chosen": lambda a, b: torch.where(a > b, a, 0.1),
    "largest": lambda a, b: (a * b).amax(1),
    "a scalar": lambda a, b: (1.001 * a).to(HALF) + b * 0.1,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operators_round_their_results(name):
    function = FUNCTIONS[name]
    a, b = numbers(5, 6), numbers(5, 6).flip(1)
    results, expected = run(lambda a, b: function(a.to(HALF), b.to(HALF)).float(), a, b)
    assert torch.equal(results, expected)


def test_products_and_sums_round_their_result_once():
    """Sums are in another order than torch's: at most the last bit may differ."""
    a, b, c = numbers(7, 40), numbers(40, 9), numbers(9)
    for function in (lambda a, b, c: torch.addmm(c, a, b), lambda a, b, c: a @ b + c, lambda a, b, c: a.sum(0)[:9] + c):
        half = lambda a, b, c, function=function: function(a.to(HALF), b.to(HALF), c.to(HALF)).float()  # noqa: E731
        results, expected = run(half, a, b, c)
        torch.testing.assert_close(results, expected, rtol=2**-7, atol=2**-9)
        assert (results == expected).float().mean() > 0.9
        assert torch.equal(results, results.to(HALF).float())


def test_parts_of_a_result_are_rounded_too():
    def function(x: Tensor) -> Tensor:
        values, places = x.to(HALF).mul(1.01).max(1)
        return values.float() + places

    results, expected = run(function, numbers(5, 6))
    assert torch.equal(results, expected)
