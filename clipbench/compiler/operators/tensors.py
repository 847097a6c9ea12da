"""Operators that only move numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipbench.compiler.call_records import Loops, bytes_apart
from clipbench.compiler.encode import Encoder, Encoding
from clipbench.compiler.trace import CannotCompile, aten


def _copy(encoder: Encoder, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    encoder.copy(out, x)


def _cast(encoder: Encoder, out: Tensor, x: Tensor, dtype: torch.dtype | None = None, **_: Any) -> None:
    if dtype == torch.bfloat16:
        encoder.compute("round_to_half", out, x)
    else:
        encoder.copy(out, x)


def _copy_into(encoder: Encoder, out: Tensor, _: Tensor, x: Tensor, *__: Any) -> None:
    encoder.copy(out, x)


def _zeros(encoder: Encoder, out: Tensor, *_: Any, **__: Any) -> None:
    encoder.fill(out, 0)


def _leave(encoder: Encoder, out: Tensor, *_: Any, **__: Any) -> None:
    """Leave memory as it is."""


def _fill(encoder: Encoder, out: Tensor, _: Tensor, value: Any) -> None:
    if isinstance(value, Tensor):
        encoder.copy(out, value)
    else:
        encoder.fill(out, value)


def _full_like(encoder: Encoder, out: Tensor, _: Tensor, *given: Any, **__: Any) -> None:
    encoder.copy(out, given[-1]) if isinstance(given[-1], Tensor) else encoder.fill(out, given[-1])


def _pad(encoder: Encoder, out: Tensor, x: Tensor, margins: Sequence[int], value: float = 0) -> None:
    if min(margins) < 0:
        raise CannotCompile("a tensor is cut by negative padding")
    inner = out
    for position, (before, after) in enumerate(zip(margins[::2], margins[1::2], strict=True)):
        dimension = out.dim() - 1 - position
        size = x.shape[dimension]
        for start, width in ((0, before), (before + size, after)):
            if width:
                encoder.fill(inner.narrow(dimension, start, width), value)
        inner = inner.narrow(dimension, before, size)
    encoder.copy(inner, x)


def _select_backward(encoder: Encoder, out: Tensor, gradient: Tensor, _: Any, dimension: int, index: int) -> None:
    encoder.fill(out, 0)
    encoder.copy(out.select(dimension, index), gradient)


def _slice_backward(encoder: Encoder, out: Tensor, gradient: Tensor, _: Any, *place: int) -> None:
    encoder.fill(out, 0)
    encoder.copy(aten.slice.Tensor(out, *place), gradient)


def _cat(encoder: Encoder, out: Tensor, parts: Sequence[Tensor], dimension: int = 0) -> None:
    parts = [part for part in parts if part.shape != (0,)]
    sizes = [part.shape[dimension] for part in parts]
    for place, part in zip(torch.split(out, sizes, dimension), parts, strict=True):
        encoder.copy(place, part)


def _stack(encoder: Encoder, out: Tensor, parts: Sequence[Tensor], dimension: int = 0) -> None:
    for place, part in zip(torch.unbind(out, dimension), parts, strict=True):
        encoder.copy(place, part)


def _flip(encoder: Encoder, out: Tensor, x: Tensor, dims: Sequence[int]) -> None:
    turned = [dim % max(x.dim(), 1) for dim in dims]
    last = x
    for dim in turned:
        last = last.narrow(dim, max(x.shape[dim] - 1, 0), min(x.shape[dim], 1))
    steps = [-step if dim in turned else step for dim, step in enumerate(bytes_apart(x))]
    encoder.add(f"copy_{encoder.kind(x)}", [out, last], Loops.of(out.shape, [bytes_apart(out), steps]))


ENCODINGS: dict[Any, Encoding] = {
    **dict.fromkeys((aten.clone.default, aten.lift_fresh_copy.default), _copy),
    aten._to_copy.default: _cast,
    **dict.fromkeys((aten.copy.default, torch.ops.prims.copy_to.default), _copy_into),
    **dict.fromkeys((aten.fill.Scalar, aten.fill.Tensor), _fill),
    aten.zero.default: _zeros,
    **dict.fromkeys((aten.zeros.default, aten.new_zeros.default, aten.zeros_like.default), _zeros),
    **dict.fromkeys((aten.full_like.default, aten.new_full.default), _full_like),
    **dict.fromkeys((aten.empty.memory_format, aten.new_empty.default, aten.empty_like.default), _leave),
    aten.constant_pad_nd.default: _pad,
    aten.select_backward.default: _select_backward,
    aten.slice_backward.default: _slice_backward,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.flip.default: _flip,
}
