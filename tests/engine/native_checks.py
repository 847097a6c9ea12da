"""How kernels of our own are checked beside torch: numbers for each lane, and layouts of memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clipbench.compiler.native_program import NativeProgram, Run, TensorAxes

LANES = 3
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -1.5, 1e-5, 30.0)

Arguments = tuple[Any, ...]


def reals(*shape: int) -> Tensor:
    return torch.randn(LANES, *shape)


def positive(*shape: int) -> Tensor:
    return torch.rand(LANES, *shape) + 0.1


def special(*shape: int) -> Tensor:
    """Numbers among which are those that are not like others."""
    values = reals(*shape)
    places = torch.randperm(values.numel())[: len(SPECIAL)]
    values.view(-1)[places] = torch.tensor(SPECIAL)[: len(places)]
    return values


def integers(below: int, *shape: int) -> Tensor:
    return torch.randint(below, (LANES, *shape))


def flags(*shape: int) -> Tensor:
    return torch.rand(LANES, *shape) > 0.5


def transposed(x: Tensor) -> Tensor:
    back = [0, *range(x.dim() - 1, 0, -1)]
    return x.permute(back).contiguous().permute(back)


def strided(x: Tensor) -> Tensor:
    wide = torch.stack([x, x], -1)
    return wide.reshape(*x.shape[:-1], 2 * x.shape[-1])[..., ::2] if x.dim() > 1 else x


def spread(x: Tensor) -> Tensor:
    """Each number of a row is the first one."""
    return x[..., :1].expand(x.shape) if x.dim() > 1 else x


def same(x: Tensor) -> Tensor:
    return x


def transposed_last(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT if x.dim() > 2 else x


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": transposed,
    "strided": strided,
    "broadcast": spread,
}


def native(
    function: Callable[..., Any], stacked: Sequence[Tensor], dtype: torch.dtype, outs: Callable[[Tensor], Tensor]
) -> Any:
    """Return what kernels compute for each lane, and what torch does."""
    expected = [function(*(x[lane] for x in stacked)) for lane in range(LANES)]
    results = [each if isinstance(each, tuple) else (each,) for each in expected]
    memory = [outs(torch.zeros(LANES, *x.shape, dtype=x.dtype)) for x in results[0]]

    one = torch.ones(LANES, 1, dtype=dtype)  # the first result says of which type real numbers are

    def listed(one: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        result = function(*given)
        return one + 1, *(result if isinstance(result, tuple) else (result,))

    inputs, outputs = [one, *stacked], [torch.empty_like(one), *memory]
    program = NativeProgram(listed, [(x, TensorAxes()) for x in inputs], [(x, TensorAxes()) for x in outputs])
    Run([program])([2, 0, 1])
    return memory, [torch.stack(each) for each in zip(*results, strict=True)]


def check(
    function: Callable[..., Any],
    stacked: Sequence[Tensor],
    dtype: torch.dtype,
    outs: Callable[[Tensor], Tensor] = lambda x: x,
    factor: float = 1,
    elementwise: bool = True,
) -> None:
    stacked = [x.to(dtype) if x.is_floating_point() else x for x in stacked]
    for found, expected in zip(*native(function, stacked, dtype, outs), strict=True):
        assert found.dtype == expected.dtype
        if not expected.is_floating_point():
            assert torch.equal(found, expected)
            continue
        finite = expected.isfinite()
        assert torch.equal(found[~finite].nan_to_num(nan=7), expected[~finite].nan_to_num(nan=7))
        size = (
            expected.abs().clamp(min=1)
            if elementwise
            else expected.abs()[finite].clamp(min=1e-9).amax()
            if finite.any()
            else 1
        )
        error = ((found - expected).abs() / size)[finite]
        assert not error.numel() or error.max() <= factor * TOLERANCE[dtype]
