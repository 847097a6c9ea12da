"""Every operator that has kernels of our own, beside torch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipbench.compiler.native_program import NativeProgram, Run, TensorAxes
from clipbench.compiler.operators import ENCODINGS, convolution_1d, products
from clipbench.compiler.trace import CannotCompile, aten
from tests.engine.native_cases import CASES
from tests.engine.native_checks import (
    LANES,
    LAYOUTS,
    TOLERANCE,
    Arguments,
    check,
    native,
    positive,
    reals,
    same,
    transposed_last,
)

pytestmark = pytest.mark.native

# Operators that only write, tensors that nothing writes to, and values that are the same in every step.
WITHOUT_VALUES = {
    torch.ops.prims.copy_to.default,
    aten.empty.memory_format,
    aten.new_empty.default,
    aten.empty_like.default,
    aten.zeros.default,
}
# Their errors grow with what is added up.
SUMS = {
    *products.ENCODINGS,
    *convolution_1d.ENCODINGS,
    *(aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim),
    *(aten._softmax_backward_data.default, aten._log_softmax_backward_data.default),
}


def call(target: Any, arguments: Arguments, layout: Callable[[Tensor], Tensor], dtype: torch.dtype, **how: Any) -> None:
    """Check an operator, whose arguments that are tensors are stacks over lanes."""
    stacked, keywords = [], {}
    if arguments and isinstance(arguments[-1], dict):
        *positional, keywords = arguments
        arguments = tuple(positional)

    def kept(x: Any) -> Any:
        if isinstance(x, Tensor):
            stacked.append(layout(x) if x.is_floating_point() or x.dtype == torch.bool else x)
            return len(stacked) - 1, "tensor"
        return [kept(each) for each in x] if isinstance(x, list) and any(isinstance(y, Tensor) for y in x) else x

    form = [kept(x) for x in arguments]

    def filled(x: Any, given: Sequence[Tensor]) -> Any:
        if isinstance(x, tuple) and len(x) == 2 and x[1] == "tensor":
            return given[x[0]]
        return [filled(each, given) for each in x] if isinstance(x, list) else x

    check(lambda *given: target(*(filled(x, given) for x in form), **keywords), stacked, dtype, **how)


def test_every_rule_has_cases() -> None:
    assert set(ENCODINGS) - WITHOUT_VALUES == set(CASES)


@pytest.fixture
def default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("default_type")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("target", CASES, ids=str)
def test_an_operator_computes_what_torch_does(target: Any, layout: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for arguments in CASES[target]():
        if target is aten.topk.default and layout == "broadcast":
            continue  # which of equal numbers come first is not said
        if target in (aten._softmax_backward_data.default, aten._log_softmax_backward_data.default):
            arguments = (*arguments[:3], dtype)
        call(
            target, arguments, LAYOUTS[layout], dtype, factor=8 if target in SUMS else 1, elementwise=target not in SUMS
        )


def test_products_of_all_shapes() -> None:
    draw = random.Random(0)
    torch.manual_seed(0)
    for dtype in TOLERANCE:
        for _ in range(150):
            m, n, k, batch = draw.randint(1, 40), draw.randint(1, 40), draw.randint(1, 70), draw.choice((0, 0, 1, 3))
            shapes = [(batch, *size) if batch else size for size in ((m, k), (k, n))]
            left, right = (draw.choice((transposed_last, same))(reals(*shape)) for shape in shapes)
            kind = draw.choice(("none", "row", "column", "whole", "one", "batch"))
            whole = {"row": (n,), "column": (m, 1), "one": (1,), "batch": (batch, 1, n) if batch else (1, n)}.get(
                kind, (m, n)
            )
            addend = draw.choice((transposed_last, same))(reals(*whole))
            outs = draw.choice((same, transposed_last))
            if kind == "none":
                check(torch.matmul, [left, right], dtype, outs, factor=math.sqrt(k), elementwise=False)
            else:
                add = torch.baddbmm if batch else torch.addmm
                check(add, [addend, left, right], dtype, outs, factor=math.sqrt(k), elementwise=False)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_products_are_added_in_place(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inputs = [reals(9, 7), reals(9, 20), reals(20, 7)]
    check(lambda c, a, b: (c * 2).addmm_(a, b), inputs, dtype, factor=5, elementwise=False)
    check(lambda c, a, b: (c * 2).T.contiguous().T + a @ b, inputs, dtype, factor=5, elementwise=False)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_long_products_and_sums_keep_their_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    check(torch.mm, [reals(5, 3000), reals(3000, 6)], dtype, factor=16, elementwise=False)
    check(lambda x: x.sum(), [positive(100_000)], dtype, factor=4, elementwise=False)
    check(lambda x: x.sum(0), [positive(3000, 40)], dtype, factor=4, elementwise=False)


def test_the_norm_of_numbers_whose_squares_a_double_cannot_hold() -> None:
    for size in (1e200, 1e-200, 0.0, math.inf):
        for p in (2, 3):
            x = torch.full((LANES, 7), size, dtype=torch.float64)
            (found,), _ = native(lambda x, p=p: torch.linalg.vector_norm(x, p), [x], torch.float64, same)
            expected = torch.full((LANES,), size, dtype=torch.float64) * 7 ** (1 / p)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("index", (5, -6))
@pytest.mark.parametrize(
    "function", (lambda x, i: x[i], lambda x, i: x.index_add(0, i, x[:2]), lambda x, i: F.embedding(i, x)), ids=range(3)
)
def test_an_index_out_of_range_raises(function: Callable[..., Tensor], index: int) -> None:
    x, places, out = torch.randn(1, 5, 4), torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2, 4)
    with torch.inference_mode():
        out = torch.stack([function(x[0], places[0])])
    program = NativeProgram(
        lambda *given: [function(*given)], [(x, TensorAxes()), (places, TensorAxes())], [(out, TensorAxes())]
    )
    Run([program])([0])
    places[0, 1] = index
    with pytest.raises(IndexError):
        Run([program])([0])


def test_numbers_of_other_types_have_no_kernels() -> None:
    x = torch.ones(1, 3, dtype=torch.float32)
    with pytest.raises(CannotCompile, match="float64"):
        check(lambda x: x.double() + 1, [x.expand(LANES, 3)], torch.float32)
