"""Calls that compute an aten operator into existing memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from clipbench.engine.compiler.trace import Unplannable, aten

Call = Callable[[], object]

COPIES = {aten.clone.default, aten._to_copy.default, aten.lift_fresh_copy.default}


def torch_kernels(target: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], out: Any) -> list[Call]:
    """Return the fastest call that writes `target(*arguments, **keywords)` into `out`, after running it once.

    Later kernels get real numbers by that. A call that this version of PyTorch does not support raises a TypeError
    before it computes anything.
    """
    for call in _candidates(target, arguments, keywords, out):
        try:
            call()
        except TypeError:
            continue
        return [call]
    raise Unplannable(f"{target} cannot be called")


def _candidates(target: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], out: Any) -> Iterator[Call]:
    """Yield calls without arguments, the fastest first."""
    if target._schema.is_mutable:
        yield partial(target._op, *arguments, **keywords)
        return
    special = SPECIAL.get(target)
    if special is not None:
        yield special(out, *arguments, **keywords)
        return
    # `torch.<name>` parses its arguments in a third of the time that the operator's overload takes.
    function = getattr(torch, target._schema.name.split("::")[1], None)
    if function is not None and isinstance(out, Tensor):
        yield partial(function, *arguments, **keywords, out=out)
    overload, names = _out_overload(target)
    outs = out if isinstance(out, tuple) else (out,)
    if overload is not None and None not in outs:
        yield partial(overload._op, *arguments, **keywords, **dict(zip(names, outs, strict=True)))
    yield partial(_copied, target, arguments, keywords, out)


@cache
def _out_overload(target: Any) -> tuple[Any, list[str]]:
    wanted = [(a.name, str(a.type)) for a in target._schema.arguments]
    for name in target.overloadpacket.overloads():
        overload = getattr(target.overloadpacket, name)
        outs = [a.name for a in overload._schema.arguments if a.is_out]
        taken = [(a.name, str(a.type)) for a in overload._schema.arguments if not a.is_out]
        if len(outs) == len(target._schema.returns) and taken == wanted:
            return overload, outs
    return None, []


def _copied(target: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], out: Any) -> None:
    """Compute an operator that only returns new tensors, and copy them: the step allocates memory here."""
    computed = target(*arguments, **keywords)
    for target_memory, result in zip(*((x if isinstance(x, tuple) else (x,)) for x in (out, computed)), strict=True):
        if target_memory is not None:
            target_memory.copy_(result)


def _copy(out: Tensor, source: Tensor, **_: Any) -> Call:
    return partial(out.copy_, source)


def _relu(out: Tensor, source: Tensor) -> Call:
    return partial(torch.clamp_min, source, 0, out=out)


def _zeros(out: Tensor, *_: Any, **__: Any) -> Call:
    return out.zero_


def _nothing(out: Tensor, *_: Any, **__: Any) -> Call:
    return bool


def _select_backward(out: Tensor, gradient: Tensor, _: object, dimension: int, index: int) -> Call:
    return partial(_framed, [out], out.select(dimension, index), gradient, 0)


def _slice_backward(out: Tensor, gradient: Tensor, _: object, *place: int) -> Call:
    return partial(_framed, [out], aten.slice.Tensor(out, *place), gradient, 0)


def _constant_pad(out: Tensor, source: Tensor, margins: Sequence[int], fill: float = 0) -> Call:
    if min(margins) < 0:
        return partial(_copied, aten.constant_pad_nd.default, (source, margins, fill), {}, out)
    inner, frame = out, []
    for position, (before, after) in enumerate(zip(margins[::2], margins[1::2], strict=True)):
        dimension = out.dim() - 1 - position
        size = source.shape[dimension]
        sides = ((0, before), (before + size, after))
        frame += [inner.narrow(dimension, start, length) for start, length in sides if length]
        inner = inner.narrow(dimension, before, size)
    return partial(_framed, frame, inner, source, fill)


def _framed(frame: Sequence[Tensor], part: Tensor, content: Tensor, fill: float) -> None:
    for side in frame:
        side.fill_(fill)
    part.copy_(content)


def _accumulated(name: str) -> Callable[..., Call]:
    def kernel(out: Tensor, addend: Tensor, one: Tensor, other: Tensor, **factors: Any) -> Call:
        if addend.data_ptr() == out.data_ptr() and addend.shape == out.shape:
            return partial(getattr(out, f"{name}_"), one, other, **factors)
        return partial(getattr(torch, name), addend, one, other, **factors, out=out)

    return kernel


SPECIAL: dict[Any, Callable[..., Call]] = {
    **dict.fromkeys(COPIES, _copy),
    aten.relu.default: _relu,
    aten.constant_pad_nd.default: _constant_pad,
    aten.select_backward.default: _select_backward,
    aten.slice_backward.default: _slice_backward,
    aten.baddbmm.default: _accumulated("baddbmm"),
    aten.addmm.default: _accumulated("addmm"),
    **dict.fromkeys((aten.zeros.default, aten.new_zeros.default, aten.zeros_like.default), _zeros),
    **dict.fromkeys((aten.empty.memory_format, aten.new_empty.default, aten.empty_like.default), _nothing),
}
