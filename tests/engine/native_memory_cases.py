"""Arguments for operators that move numbers, look them up or take them from windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clipbench.compiler.trace import aten
from tests.engine.native_checks import LANES, Arguments, flags, integers, reals, special

IMAGES = lambda: reals(2, 3, 9, 8)  # noqa: E731
POOLS = (
    ([2], [2], [0], [1]),
    ([3], [2], [1], [1]),
    ([2, 3], [1, 2], [0, 1], [1]),
    ([2], [3], [0], [1]),
    ([2], [2], [0], [2]),
)


def pool_backward() -> list[Arguments]:
    cases = []
    for window in POOLS:
        x = IMAGES()
        found = [aten.max_pool2d_with_indices.default(each, *window) for each in x]
        y, index = (torch.stack(each) for each in zip(*found, strict=True))
        cases.append((torch.randn_like(y), x, *window, False, index))
    return cases


def averages(*more: Any) -> list[Arguments]:
    windows = (([2],), ([3], [2], [1]), ([2, 3], [1, 2], [1, 0]), ([2], [3]), ([2], [2], [1], False, True, 5))
    return [(IMAGES(), *window) for window in windows]


def averages_backward() -> list[Arguments]:
    cases = []
    for x, *window in averages():
        y = aten.avg_pool2d.default(x[0], *window)
        rest = [[], [0], False, True, None][len(window) - 1 :]
        cases.append((reals(*y.shape), x, *window, *rest))
    return cases


def at_places(*extra: Any) -> list[Arguments]:
    return [
        (reals(5, 6), 0, integers(5, 3, 4), *(x(3, 4) if callable(x) else x for x in extra)),
        (reals(5, 6), 1, integers(6, 5, 2), *(x(5, 2) if callable(x) else x for x in extra)),
        (reals(4), -1, integers(4, 9), *(x(9) if callable(x) else x for x in extra)),
    ]


def distinct(*shape: int) -> Tensor:
    return torch.stack([torch.randperm(math.prod(shape)).view(shape) for _ in range(LANES)])


PUT = lambda: [(reals(8, 3), 0, distinct(8, 1).expand(LANES, 8, 3).contiguous())]  # noqa: E731


def indexed() -> list[Arguments]:
    return [
        (reals(5, 6), [integers(5, 4)]),
        (reals(5, 6), [None, integers(6, 2, 3)]),
        (reals(5, 6), [integers(5, 4), integers(6, 4) - 6]),
        (reals(5, 6, 4), [integers(5, 3), None, integers(4, 3)]),
        (reals(2, 5, 6), [None, integers(5, 3, 1), integers(6, 2)]),
        (integers(9, 5, 6), [integers(5, 4)]),
        (flags(5), [integers(5, 4)]),
    ]


def put() -> list[Arguments]:
    return [
        (reals(5, 6), [integers(5, 4), integers(6, 4)], reals(4), True),
        (reals(5, 6), [integers(5, 4)], reals(6), True),
        (reals(8, 3), [distinct(8)], reals(8, 3)),
        (reals(8, 3), [distinct(8)], reals()),
        (integers(9, 8), [distinct(8)], integers(9, 8)),
    ]


LIKE = lambda: [(special(4, 3),), (integers(5, 3),), (flags(2, 3),)]  # noqa: E731
CASES_OF_MEMORY: dict[Any, Callable[[], list[Arguments]]] = {
    # Memory
    aten.clone.default: lambda: [*LIKE(), (reals(20, 37),), (reals(3, 20, 37),), (reals(2, 3, 4, 5),)],
    aten._to_copy.default: lambda: [
        (x, {"dtype": dtype}) for (x,) in [(reals(4, 3) * 5,), *LIKE()[1:]] for dtype in (torch.int64, torch.bool)
    ],
    aten.lift_fresh_copy.default: LIKE,
    aten.copy.default: lambda: [(reals(4, 5), reals(5)), (reals(4, 5), integers(7, 4, 5))],
    aten.fill.Scalar: lambda: [(x, 1) for (x,) in LIKE()],
    aten.fill.Tensor: lambda: [(reals(4, 3), reals())],
    aten.zero.default: LIKE,
    aten.zeros_like.default: LIKE,
    aten.new_zeros.default: lambda: [(x, [3, 2]) for (x,) in LIKE()],
    aten.full_like.default: lambda: [(x, 1) for (x,) in LIKE()],
    aten.new_full.default: lambda: [(x, [3, 2], 1) for (x,) in LIKE()],
    aten.constant_pad_nd.default: lambda: [
        (reals(2, 3, 4), [1, 2]),
        (reals(2, 3, 4), [0, 1, 2, 0], 0.5),
        (reals(2, 3, 4), [-1, 2]),
    ],
    aten.select_backward.default: lambda: [(reals(3, 5), [3, 4, 5], 1, -2)],
    aten.slice_backward.default: lambda: [(reals(3, 2, 5), [3, 6, 5], 1, 1, 5, 2)],
    aten.cat.default: lambda: [([reals(2, 3), reals(4, 3)],), ([reals(2, 3), reals(2, 5)], -1)],
    aten.stack.default: lambda: [([reals(2, 3), reals(2, 3)], dim) for dim in (0, 1, -1)],
    aten.flip.default: lambda: [(reals(3, 4, 5), [0, -1]), (integers(9, 6), [0]), (flags(2, 5), [1])],
    # Indices
    aten.gather.default: at_places,
    aten.scatter_add.default: lambda: at_places(reals),
    aten.scatter.src: lambda: [(*case, reals(8, 3)) for case in PUT()],
    aten.scatter.value: lambda: at_places(0.5),
    aten.index_select.default: lambda: [(reals(5, 6), 0, integers(5, 9)), (reals(5, 6), -1, integers(6, 9))],
    aten.index.Tensor: indexed,
    aten._unsafe_index.Tensor: indexed,
    aten.index_put.default: lambda: [*put(), (reals(4, 3), [flags(4, 3)], reals()), (reals(4, 3), [flags(4)], reals())],
    aten._unsafe_index_put.default: put,
    aten._index_put_impl.default: put,
    aten.embedding.default: lambda: [(reals(7, 5), integers(7, 3, 4)), (reals(7, 5), integers(7, 3))],
    aten.embedding_dense_backward.default: lambda: [
        (reals(3, 4, 5), integers(7, 3, 4), 7, -1, False),
        (reals(3, 4, 5), integers(7, 3, 4), 7, 2, False),
    ],
    # Pooling
    aten.max_pool2d_with_indices.default: lambda: [(IMAGES(), *w) for w in POOLS] + [(reals(3, 8, 8), [2])],
    aten.max_pool2d_with_indices_backward.default: pool_backward,
    aten.avg_pool2d.default: averages,
    aten.avg_pool2d_backward.default: averages_backward,
    aten._adaptive_avg_pool2d.default: lambda: [(reals(2, 3, 8, 6), [4, 2]), (reals(2, 3, 8, 6), [1, 1])],
    aten._adaptive_avg_pool2d_backward.default: lambda: [(reals(2, 3, 4, 2), reals(2, 3, 8, 6))],
}
