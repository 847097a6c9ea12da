"""Convolutions of rows: a product of matrices for each number of the window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from clipbench.compiler.encode import Encoder, Encoding
from clipbench.compiler.operators.layers import numbers_of, reach
from clipbench.compiler.operators.products import product
from clipbench.compiler.operators.reductions import reduce
from clipbench.compiler.trace import CannotCompile, aten


def _convolution(encoder: Encoder, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *window: Any) -> None:
    if bias is None:
        encoder.fill(out, 0)
    else:
        encoder.copy(out, bias.unsqueeze(-1))
    for y, part, taps in _products(out, x, weight, *window):
        product(encoder, y, taps.expand(len(y), *taps.shape), part, y)


def _convolution_backward(
    encoder: Encoder,
    out: Sequence[Tensor | None],
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    _: Any,
    *window: Any,
) -> None:
    *window, mask = window  # type: ignore[assignment]
    of_x, of_weight, of_bias = (each if wanted else None for each, wanted in zip(out, mask, strict=True))
    if of_x is not None:
        encoder.fill(of_x, 0)
        for y, part, taps in _products(gradient, of_x, weight, *window):
            product(encoder, part, taps.mT.expand(len(y), *taps.mT.shape), y, part)
    if of_weight is not None:
        encoder.fill(of_weight, 0)
        for y, part, taps in _products(gradient, x, of_weight, *window):
            total = taps.expand(len(y), *taps.shape)  # one matrix: the products of all rows are added up
            product(encoder, total, y, part.mT, total)
    if of_bias is not None:
        reduce(encoder, "sum", of_bias, gradient, [0, 2])


def _products(
    y: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _: Any,
    groups: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield, for each number of the window, results [N, O, L], inputs [N, C, L] and weights [O, C] of a product."""
    if x.dim() != 3 or transposed:
        raise CannotCompile("a convolution of images, or a transposed one")
    for ys, xs, weights in zip(y.chunk(groups, 1), x.chunk(groups, 1), weight.chunk(groups), strict=True):
        for tap in range(weight.shape[2]):
            offset = tap * dilation[0] - padding[0]
            windows = reach(y.shape[2], x.shape[2], offset, stride[0])
            if windows.stop > windows.start:
                yield ys[:, :, windows], xs[:, :, numbers_of(windows, offset, stride[0])], weights[:, :, tap]


ENCODINGS: dict[Any, Encoding] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
}
