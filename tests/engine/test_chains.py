"""Chains of records compute block by block what the records compute one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clipbench.compiler.native_program import NativeProgram, Run, TensorAxes

pytestmark = pytest.mark.native

LENGTH = 5001  # three blocks, the last one short and with a rest
LANES = 2

Values = list[Tensor]
# Functions of what was computed before (long tensors and numbers), chosen by two positions.
STEPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "multiply": lambda a, b: a * b,
    "difference": lambda a, b: (a - b).abs(),
    "choose": lambda a, b: torch.where(a > b, a, b * 0.5),
    "tanh": lambda a, b: a.tanh(),
    "write": lambda a, b: a.clone().add_(b).mul_(0.5),
    "write part": lambda a, b: _with_part(a, b),
    "shift": lambda a, b: torch.cat([a[1:], b[:1]]),
    "reverse": lambda a, b: a.flip(0),
    "scale by norm": lambda a, b: a / (1 + torch.linalg.vector_norm(b)),
    "scale by sum": lambda a, b: a * b.mean(),
    "scale by largest": lambda a, b: a / (1 + b.abs().amax()),
    "count": lambda a, b: a + (b != 0).to(a.dtype).sum() / LENGTH,
}


def _with_part(a: Tensor, b: Tensor) -> Tensor:
    changed = a.clone()
    changed[100:4900].add_(b[:4800])
    return changed


Program = list[tuple[str, int, int]]
programs: st.SearchStrategy[Program] = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=12
)


def function_of(program: Program) -> Callable[..., Sequence[Tensor]]:
    def function(*tensors: Tensor) -> Sequence[Tensor]:
        known = list(tensors)
        for name, one, other in program:
            known.append(STEPS[name](known[one % len(known)], known[other % len(known)]))
        sizes = [torch.linalg.vector_norm(known[-1]), known[-2].abs().amax(), known[-1].sum() / LENGTH]
        return [*known[len(tensors) :][-3:], known[-1] * 0.5 + tensors[0], *sizes]

    return function


def native(function: Callable[..., Sequence[Tensor]], inputs: Values, outputs: Values) -> NativeProgram:
    bound = [[(tensor, TensorAxes()) for tensor in some] for some in (inputs, outputs)]
    return NativeProgram(function, *bound)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@settings(max_examples=40)
@given(program=programs, in_place=st.booleans())
def test_any_program_computes_what_torch_computes(dtype: torch.dtype, program: Program, in_place: bool) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(LANES, LENGTH, dtype=dtype) for _ in range(3)]
    function = function_of(program)
    expected = [
        torch.stack(each) for each in zip(*(function(*lane) for lane in zip(*inputs, strict=True)), strict=True)
    ]
    outputs = [torch.zeros_like(each) for each in expected]
    if in_place:  # as weights are
        outputs[0] = inputs[1]
    compiled = native(function, inputs, outputs)
    Run([compiled])(range(LANES))
    for mine, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=1e-5)


def test_what_follows_the_norm_is_one_chain() -> None:
    """Scaled gradient, momentum, new weights, their sum, and the largest element of the gradient."""

    def step(w: Tensor, g: Tensor, m: Tensor) -> Sequence[Tensor]:
        size = torch.linalg.vector_norm(g)
        new = 0.9 * m + g * (1 / (size + 1e-6)).clamp(max=1)
        changed = w - 0.1 * new
        return changed, new, size, g.abs().amax(), changed.sum()

    w, g, m = (torch.randn(1, LENGTH) for _ in range(3))
    records = native(step, [w, g, m], [w, m, *torch.zeros(3, 1)])._records
    long, position = [], 0
    while position < len(records):
        first = records[position]
        if first.size[4] == LENGTH:
            long.append(first.chain)
        position += first.chain
    assert max(long) >= 6 and len(long) <= 4


def test_short_tensors_are_computed_as_they_are() -> None:
    x = torch.randn(1, 64)
    records = native(lambda x: ((x * 2 + 1).tanh(), x.sum()), [x], [torch.zeros(1, 64), torch.zeros(1)])._records
    assert {record.chain for record in records} == {1}
