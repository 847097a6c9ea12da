"""Arguments for every operator that has a rule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clipbench.compiler.operators import pointwise
from clipbench.compiler.trace import aten
from tests.engine.native_checks import Arguments, flags, integers, positive, reals, special
from tests.engine.native_memory_cases import CASES_OF_MEMORY

SHAPES = ((7, 33), (5, 3, 4), (1,), (), (70,))
UNARY_DOMAIN = {"rsqrt": positive, "gelu": reals, "tan": lambda *shape: positive(*shape) / 2}


def unary(name: str) -> list[Arguments]:
    make = UNARY_DOMAIN.get(name, special)
    return [(make(*shape),) for shape in SHAPES]


def binary() -> list[Arguments]:
    pairs = [
        ((7, 33), (7, 33)),
        ((7, 33), (33,)),
        ((7, 1), (1, 33)),
        ((), (4, 5)),
        ((4, 5), ()),
        ((2, 3, 4, 5), (3, 1, 5)),
    ]
    return [(special(*a), special(*b)) for a, b in pairs] + [(special(3, 5), 0.75)]


def whole_numbers() -> list[Arguments]:
    return [(integers(9, 6, 5) - 4, integers(9, 6, 5) - 4), (integers(9, 6, 5), integers(9, 5)), (integers(9, 6, 5), 3)]


def backward(*numbers: Any) -> list[Arguments]:
    return [(reals(*shape), reals(*shape), *numbers) for shape in SHAPES]


def scalars(cases: list[Arguments]) -> list[Arguments]:
    return [(a, b if isinstance(b, float | int) else 0.3) for a, b in cases]


def arrays(cases: list[Arguments]) -> list[Arguments]:
    return [(a, b) for a, b in cases if isinstance(b, Tensor)]


def overloads(name: str, cases: list[Arguments]) -> dict[Any, list[Arguments]]:
    packet = getattr(aten, name)
    return {packet.Tensor: arrays(cases), packet.Scalar: scalars(cases)}


def reductions(make: Callable[..., Tensor] = special, rank: int = 4) -> list[Arguments]:
    """Every choice of dimensions."""
    cases: list[Arguments] = [(make(), []), (make(1), [0]), (make(70, 3), [0])]
    for n in range(1, rank + 1):
        for count in range(1, n + 1):
            cases += [
                (make(*(3, 18, 2, 5)[:n]), list(dims), count % 2 > 0)
                for dims in itertools.combinations(range(n), count)
            ]
    return cases


def rows(*more: Any) -> list[Arguments]:
    shapes = (
        ((4, 20), 1),
        ((4, 20), 0),
        ((2, 33, 10), -1),
        ((3, 4, 5), 1),
        ((1, 300), 1),
        ((6,), 0),
        ((2, 3, 5, 20), 3),
    )
    return [(reals(*shape), dim, *more) for shape, dim in shapes]


def rows_backward() -> list[Arguments]:
    return [(reals(*x.shape[1:]), x.softmax(dim if dim < 0 else dim + 1), dim, torch.float32) for x, dim in rows()]


def logs_backward() -> list[Arguments]:
    return [(a, y.log(), *rest) for a, y, *rest in rows_backward()]


def along(*more: Any) -> list[Arguments]:
    return [*rows(*more), (special(4, 30), 1, *more), (special(30, 4), 0, *more), (reals(), 0, *more)]


def multiplied(*, addend: bool = False) -> list[Arguments]:
    sizes = ((1, 1, 1), (5, 7, 3), (12, 32, 16), (13, 33, 300), (40, 10, 9), (3, 40, 0))
    return [(*((reals(n),) if addend else ()), reals(m, k), reals(k, n)) for m, n, k in sizes]


def batched(cases: list[Arguments]) -> list[Arguments]:
    return [tuple(torch.stack([x] * 3, 1) if x.dim() > 2 else x for x in case) for case in cases]


WINDOWS = (
    ([1], [0], [1], False, [0], 1),
    ([2], [1], [1], False, [0], 2),
    ([1], [2], [2], False, [0], 1),
)


def convolutions() -> list[Arguments]:
    return [(reals(2, 4, 9), reals(6, 4 // w[-1], 3), reals(6) if w[-1] > 1 else None, *w) for w in WINDOWS]


def convolutions_backward() -> list[Arguments]:
    cases = []
    for x, weight, _, *window in convolutions():
        y = aten.convolution.default(x[0], weight[0], None, *window)
        cases.append((reals(*y.shape), x, weight, [6], *window, [True, True, True]))
    return cases


CASES: dict[Any, Callable[[], list[Arguments]]] = {
    **{getattr(aten, name).default: (lambda name=name: unary(name)) for name in pointwise.UNARY},
    **{
        getattr(aten, name).default: lambda: arrays(binary())
        for name in ("maximum", "minimum", "atan2", "floor_divide")
    },
    **{getattr(aten, f"{name}_backward").default: backward for name in ("tanh", "sigmoid", "silu")},
    aten.gelu.default: lambda: unary("gelu"),
    aten.gelu_backward.default: backward,
    aten.threshold_backward.default: lambda: backward(0.1),
    aten.softshrink_backward.default: lambda: backward(0.4),
    aten.hardshrink_backward.default: lambda: backward(0.4),
    aten.leaky_relu.default: lambda: [(x, 0.2) for (x,) in unary("leaky_relu")],
    aten.leaky_relu_backward.default: lambda: backward(0.2, False),
    aten.hardtanh.default: lambda: [(x, -0.5, 0.7) for (x,) in unary("hardtanh")],
    aten.clamp.default: lambda: [(special(9, 5), -0.3, None), (special(9, 5), None, 0.4), (special(9, 5), -0.3, 0.4)],
    aten.clamp.Tensor: lambda: [(special(9, 5), reals(5), reals(9, 5)), (special(9, 5), reals(9, 1), None)],
    aten.where.self: lambda: [
        (flags(9, 5), special(9, 5), special(5)),
        (flags(70), special(70), special()),
        (flags(), special(70), reals(70)),
        (flags(4, 3), integers(5, 4, 3), integers(5, 3)),
        (flags(4, 3), flags(4, 3), flags(3)),
    ],
    aten.masked_fill.Scalar: lambda: [(special(9, 5), flags(9, 5), 0.3), (special(9, 5), flags(5), -math.inf)],
    aten.masked_fill.Tensor: lambda: [(special(9, 5), flags(9, 5), reals())],
    aten.pow.Tensor_Scalar: lambda: [(special(9, 5), p) for p in (0.5, 1, 2, 3, -1, -2, 1.5, 0)],
    aten.pow.Tensor_Tensor: lambda: [(positive(9, 5), reals(9, 5)), (positive(9, 5), reals(5))],
    aten.pow.Scalar: lambda: [(1.7, reals(9, 5))],
    aten.addcmul.default: lambda: [(reals(9, 5), reals(5), positive(9, 5), {"value": 0.3})],
    aten.addcdiv.default: lambda: [(reals(9, 5), reals(5), positive(9, 5), {"value": 0.3})],
    aten.lerp.Scalar: lambda: [(reals(9, 5), reals(9, 5), w) for w in (0.1, 0.9)],
    aten.lerp.Tensor: lambda: [(reals(9, 5), reals(9, 5), reals(5))],
    **{
        target: cases
        for name in ("lt", "le", "gt", "ge", "eq", "ne")
        for target, cases in {
            getattr(aten, name).Tensor: lambda: [
                *arrays(binary()),
                *arrays(whole_numbers()),
                (integers(3, 5), reals(5)),
            ],
            getattr(aten, name).Scalar: lambda: [*scalars(binary()), (integers(3, 5), 1), (integers(3, 5), 1.5)],
        }.items()
    },
    **{
        target: cases
        for name in ("add", "sub", "mul")
        for target, cases in {
            getattr(aten, name).Tensor: lambda: [
                *arrays(binary()),
                *arrays(whole_numbers()),
                (integers(3, 5), reals(5)),
            ],
            getattr(aten, name).Scalar: lambda: [*scalars(binary()), (integers(3, 5), 2)],
        }.items()
    },
    aten.rsub.Tensor: lambda: [(*case, {"alpha": 2}) for case in arrays(binary())],
    aten.rsub.Scalar: lambda: scalars(binary()),
    aten.div.Tensor: lambda: [*arrays(binary()), (integers(9, 5), integers(9, 5))],
    aten.div.Scalar: lambda: scalars(binary()),
    aten.div.Tensor_mode: lambda: [(*c, {"rounding_mode": m}) for c in arrays(binary()) for m in ("floor", "trunc")],
    aten.div.Scalar_mode: lambda: [
        (*c, {"rounding_mode": m}) for c in scalars(binary()) for m in ("floor", "trunc", None)
    ],
    **{
        target: cases
        for name in ("remainder", "fmod")
        for target, cases in {
            getattr(aten, name).Tensor: lambda: arrays(binary()),
            getattr(aten, name).Scalar: lambda: [*scalars(binary()), (special(4), -0.3)],
        }.items()
    },
    **{getattr(aten, f"clamp_{end}").default: lambda: [(special(9, 5), 0.2)] for end in ("min", "max")},
    **{getattr(aten, f"clamp_{end}").Tensor: lambda: [(special(9, 5), reals(5))] for end in ("min", "max")},
    **{
        target: lambda: [(flags(9, 5), flags(5)), (flags(70), flags())]
        for target in (aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.bitwise_xor.Tensor)
    },
    **{
        target: lambda: [(flags(9, 5), flags(5)), (reals(70), flags(70))]
        for target in (aten.logical_and.default, aten.logical_or.default, aten.logical_xor.default)
    },
    aten.logical_not.default: lambda: [(flags(9, 5),), (special(70),), (integers(2, 9),)],
    aten.bitwise_not.default: lambda: [(flags(9, 5),)],
    aten.isnan.default: lambda: unary("isnan"),
    # Products
    aten.mm.default: multiplied,
    aten.bmm.default: lambda: batched(multiplied()),
    aten.addmm.default: lambda: [
        *multiplied(addend=True),
        (reals(4, 5), reals(4, 3), reals(3, 5)),
        (reals(5), reals(4, 3), reals(3, 5), {"beta": 0.5, "alpha": 2}),
    ],
    aten.baddbmm.default: lambda: [
        (reals(2, 4, 5), reals(2, 4, 3), reals(2, 3, 5)),
        (reals(5), reals(2, 4, 3), reals(2, 3, 5)),
    ],
    aten.mv.default: lambda: [(reals(4, 5), reals(5))],
    aten.dot.default: lambda: [(reals(50), reals(50))],
    # Reductions
    aten.sum.default: lambda: [(x,) for x, *_ in reductions()] + [(flags(9, 5),)],
    aten.sum.dim_IntList: lambda: [*reductions(), (flags(9, 5), [0])],
    aten.mean.default: lambda: [(x,) for x, *_ in reductions()],
    aten.mean.dim: reductions,
    aten.amax.default: reductions,
    aten.amin.default: reductions,
    aten.max.default: lambda: [(x,) for x, *_ in reductions()],
    aten.min.default: lambda: [(x,) for x, *_ in reductions()],
    aten.prod.default: lambda: [(reals(3, 4),), (special(2, 3),), (reals(),)],
    aten.prod.dim_int: along,
    aten.any.default: lambda: [(flags(3, 4),), (special(3, 4),), (integers(2, 3),)],
    aten.all.default: lambda: [(flags(3, 4),), (special(3, 4),), (integers(2, 3),)],
    aten.any.dim: lambda: [(flags(3, 4), 0), (special(3, 4), -1, True)],
    aten.all.dim: lambda: [(flags(3, 4), 0), (special(3, 4), -1, True)],
    aten.any.dims: lambda: [(flags(3, 4, 2), [0, 2])],
    aten.all.dims: lambda: [(flags(3, 4, 2), [0, 2], True)],
    aten.linalg_vector_norm.default: lambda: [
        *[
            (reals(3, 18, 5), p, dims)
            for p in (0, 1, 2, 3, 2.5, -1, math.inf, -math.inf)
            for dims in (None, [1], [0, 2])
        ],
        *[(special(4, 20), p, [1], True) for p in (1, 2, 3, math.inf)],
        (reals(), 2),
    ],
    aten.var.correction: lambda: [
        (x, list(dims), {"correction": c}) for x, dims, *_ in reductions(reals) for c in (0, 1)
    ],
    aten.std.correction: lambda: [(x, dims, {"correction": 0, "keepdim": True}) for x, dims, *_ in reductions(reals)],
    aten._softmax.default: lambda: [*rows(False), (special(9, 5), 1, False), (reals(), 0, False)],
    aten._log_softmax.default: lambda: [*rows(False), (special(9, 5), 1, False)],
    aten._softmax_backward_data.default: rows_backward,
    aten._log_softmax_backward_data.default: logs_backward,
    aten.cumsum.default: rows,
    aten.cumprod.default: rows,
    aten.argmax.default: lambda: [*along(), (reals(3, 4),), (special(4, 5), 1, True)],
    aten.argmin.default: lambda: [*along(), (reals(3, 4),), (special(4, 5), 1, True)],
    aten.max.dim: along,
    aten.min.dim: along,
    aten.sort.default: lambda: [*along(), *along(True)],
    aten.sort.stable: lambda: [(integers(4, 9).float(), {"stable": True, "descending": d}) for d in (False, True)],
    aten.topk.default: lambda: [(reals(4, 30), 5), (reals(30, 4), 3, 0, False)],
    aten.convolution.default: convolutions,
    aten.convolution_backward.default: convolutions_backward,
    **CASES_OF_MEMORY,
}
