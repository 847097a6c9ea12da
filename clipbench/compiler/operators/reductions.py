"""Sums, norms and the like along some dimensions, and operators along one dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipbench.compiler.call_records import Loops, bytes_apart
from clipbench.compiler.encode import Encoder, Encoding, Scalar
from clipbench.compiler.trace import CannotCompile, aten

EXACT = 2**24  # integers that a float holds
SHORT, MANY = 256, 8  # rows of as few numbers are added up together, if they are so many


def _reduction(name: str) -> Encoding:
    def encode(
        encoder: Encoder, out: Tensor, x: Tensor, dims: Any = None, keepdim: bool = False, *, dtype: Any = None
    ) -> None:
        reduce(encoder, name, out, x, dims)

    return encode


def _mean(
    encoder: Encoder, out: Tensor, x: Tensor, dims: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> None:
    reduce(encoder, "sum", out, x, dims, 1 / math.prod(x.shape[axis] for axis in _axes(x, dims)))


def reduce(encoder: Encoder, name: str, out: Tensor, x: Tensor, dims: Any = None, number: float = 1) -> None:
    """Reduce `x` along some dimensions, or all."""
    if out.dtype == torch.int64 and x.dtype == torch.bool and x.numel() <= EXACT:
        counted = encoder.scratch(out.shape)
        reduce(encoder, name, counted, x, dims, number)
        return encoder.copy(out, counted)
    if out.dtype != encoder.dtype:
        raise CannotCompile(f"a reduction of {x.dtype}")
    x = encoder.real(x)
    axes = _axes(x, dims)
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    whole = out.reshape(shape) if out.dim() != x.dim() else out  # a view: only dimensions of size 1 are added
    if x.numel() == 0 or whole.data_ptr() != out.data_ptr():
        raise CannotCompile("a reduction of nothing")
    kept = [axis for axis in range(x.dim()) if axis not in axes]
    steps, bytes_each = [bytes_apart(tensor) for tensor in (whole, x)], x.element_size()
    outer = Loops.of([x.shape[axis] for axis in kept], [[each[axis] for axis in kept] for each in steps])
    inner = Loops.of([x.shape[axis] for axis in axes], [[each[axis] for axis in axes] for each in steps[1:]])
    inner = Loops(inner.sizes, ((0,) * inner.rank, *(inner.strides or ((),))))
    # A sum whose elements are contiguous along the result adds up rows.
    rows = name == "sum" and outer.rank > 0 and outer.strides[0][-1] == outer.strides[1][-1] == bytes_each
    if rows and (not inner.rank or inner.strides[1][-1] != bytes_each):
        last = Loops(outer.sizes[-1:], tuple(each[-1:] for each in outer.strides))
        rest = Loops(outer.sizes[:-1], tuple(each[:-1] for each in outer.strides))
        name, loops, split = "sum_of_rows", last.inside(inner.inside(rest)), rest.rank
    else:
        loops, split = inner.inside(outer), outer.rank
        if not inner.rank:
            loops = Loops((*loops.sizes, 1), tuple((*each, bytes_each) for each in loops.strides or ((), ())))
        elif name == "sum" and inner.rank == 1 and inner.sizes[0] <= SHORT and out.numel() >= MANY:
            name = "sum_abreast"
    encoder.add(name, [whole, x], loops=loops, numbers=[number], wholes=[split + max(0, 5 - loops.rank)])


def _axes(x: Tensor, dims: Any) -> list[int]:
    given = [dims] if isinstance(dims, int) else dims or range(x.dim())
    return [dim % max(x.dim(), 1) for dim in given][: x.dim()]


NORMS = {0.0: "count_not_zero", 1.0: "sum_of_sizes", 2.0: "root_of_squares", math.inf: "largest", -math.inf: "smallest"}


def _norm(
    encoder: Encoder,
    out: Tensor,
    x: Tensor,
    p: Scalar = 2,
    dims: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> None:
    reduce(encoder, NORMS.get(float(p), "norm"), out, x, dims, float(p))


def _variance(
    encoder: Encoder,
    out: Tensor,
    x: Tensor,
    dims: Any = None,
    *,
    correction: Scalar | None = None,
    keepdim: bool = False,
) -> None:
    reduce(encoder, "variance", out, x, dims, 1 if correction is None else float(correction))


def _deviation(encoder: Encoder, out: Tensor, *given: Any, **options: Any) -> None:
    _variance(encoder, out, *given, **options)
    encoder.compute("square_root", out, out)


def _of_flags(name: str) -> Encoding:
    """Return the rule of `any` and `all`: the largest and the smallest of the flags as numbers."""

    def encode(encoder: Encoder, out: Tensor, x: Tensor, dims: Any = None, keepdim: bool = False) -> None:
        found = encoder.scratch(out.shape)
        reduce(encoder, name, found, encoder.flag(x), dims)
        encoder.copy(out, found)

    return encode


# Along one dimension


def along(encoder: Encoder, name: str, operands: Sequence[Tensor], dim: int, wholes: Sequence[int] = ()) -> None:
    """Add an operator on rows along a dimension; an operand with one number in a row has strides of 0."""
    moved = [tensor.movedim(dim, -1) if tensor.dim() else tensor.view(1) for tensor in operands]
    steps = [bytes_apart(tensor) for tensor in moved]
    outer = Loops.of(moved[0].shape[:-1], [each[:-1] for each in steps])
    row = Loops(tuple(moved[-1].shape[-1:]), tuple((each[-1],) for each in steps))
    encoder.add(name, moved, loops=row.inside(outer), wholes=wholes)


def _softmax(name: str) -> Encoding:
    return lambda encoder, out, x, dim, _: along(encoder, name, [out, encoder.real(x)], dim)


def _softmax_backward(name: str) -> Encoding:
    return lambda encoder, out, gradient, y, dim, _: along(encoder, name, [out, gradient, y], dim)


def _running(name: str) -> Encoding:
    def encode(encoder: Encoder, out: Tensor, x: Tensor, dim: int, *, dtype: Any = None) -> None:
        if out.dtype != encoder.dtype:
            raise CannotCompile(f"sums up to each number of {out.dtype}")
        along(encoder, name, [out, encoder.real(x)], dim)

    return encode


def _place(largest: bool) -> Encoding:
    def encode(encoder: Encoder, out: Tensor, x: Tensor, dim: int | None = None, keepdim: bool = False) -> None:
        if x.dtype != encoder.dtype:
            raise CannotCompile(f"the largest number of {x.dtype}")
        if dim is None:
            flat = encoder.scratch([x.numel()])
            encoder.copy(flat.view(x.shape), x)
            x, dim, out = flat, 0, out.reshape(1)
        elif not x.dim():
            return encoder.fill(out, 0)
        kept = out if keepdim or out.dim() == x.dim() else out.unsqueeze(dim)
        along(encoder, "place_of", [kept, x], dim, [int(largest)])

    return encode


def _largest_and_place(largest: bool) -> Encoding:
    def encode(encoder: Encoder, out: tuple[Tensor, Tensor], x: Tensor, dim: int, keepdim: bool = False) -> None:
        if x.dtype != encoder.dtype:
            raise CannotCompile(f"the largest number of {x.dtype}")
        reduce(encoder, "maximum_of" if largest else "minimum_of", out[0], x, dim)
        _place(largest)(encoder, out[1], x, dim, keepdim)

    return encode


def _sort(encoder: Encoder, out: tuple[Tensor, Tensor], x: Tensor, dim: int = -1, descending: bool = False) -> None:
    if x.dtype != encoder.dtype:
        raise CannotCompile(f"numbers of {x.dtype} are sorted")
    along(encoder, "sort", [*out, x], dim, [int(descending)])


def _stable_sort(
    encoder: Encoder, out: tuple[Tensor, Tensor], x: Tensor, *, stable: Any, dim: int = -1, descending: bool = False
) -> None:
    _sort(encoder, out, x, dim, descending)


def _first_sorted(
    encoder: Encoder,
    out: tuple[Tensor, Tensor],
    x: Tensor,
    count: int,
    dim: int = -1,
    largest: bool = True,
    sorted: bool = True,
) -> None:
    whole = encoder.scratch(x.shape), encoder.scratch(x.shape, torch.int64)
    _sort(encoder, whole, x, dim, largest)
    for part, each in zip(out, whole, strict=True):
        encoder.copy(part, each.narrow(dim, 0, count) if x.dim() else each)


ENCODINGS: dict[Any, Encoding] = {
    **dict.fromkeys((aten.sum.default, aten.sum.dim_IntList), _reduction("sum")),
    **dict.fromkeys((aten.mean.default, aten.mean.dim), _mean),
    **dict.fromkeys((aten.amax.default, aten.max.default), _reduction("maximum_of")),
    **dict.fromkeys((aten.amin.default, aten.min.default), _reduction("minimum_of")),
    **dict.fromkeys((aten.prod.default, aten.prod.dim_int), _reduction("product_of")),
    **dict.fromkeys((aten.any.default, aten.any.dim, aten.any.dims), _of_flags("maximum_of")),
    **dict.fromkeys((aten.all.default, aten.all.dim, aten.all.dims), _of_flags("minimum_of")),
    aten.linalg_vector_norm.default: _norm,
    aten.var.correction: _variance,
    aten.std.correction: _deviation,
    aten._softmax.default: _softmax("softmax"),
    aten._log_softmax.default: _softmax("log_softmax"),
    aten._softmax_backward_data.default: _softmax_backward("softmax_backward"),
    aten._log_softmax_backward_data.default: _softmax_backward("log_softmax_backward"),
    aten.cumsum.default: _running("running_sum"),
    aten.cumprod.default: _running("running_product"),
    aten.argmax.default: _place(True),
    aten.argmin.default: _place(False),
    aten.max.dim: _largest_and_place(True),
    aten.min.dim: _largest_and_place(False),
    aten.sort.default: _sort,
    aten.sort.stable: _stable_sort,
    aten.topk.default: _first_sorted,
}
