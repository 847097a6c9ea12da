"""Pooling of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from clipbench.compiler.call_records import Loops, bytes_apart
from clipbench.compiler.encode import Encoder, Encoding
from clipbench.compiler.trace import CannotCompile, aten

Pairs = Sequence[tuple[int, int]]


def _max_pool(encoder: Encoder, out: tuple[Tensor, Tensor], x: Tensor, *window: Any) -> None:
    _pool(encoder, "max_pool", [*out, x], x, out[0], _window(window))


def _max_pool_backward(encoder: Encoder, out: Tensor, gradient: Tensor, x: Tensor, *window: Any) -> None:
    *given, indices = window
    kernel, stride, padding, dilation = _window(given)
    sizes, windows = _images(x).shape[2:], _images(gradient).shape[2:]
    disjoint = kernel[0] <= stride[0] and kernel[1] <= stride[1] and padding == (0, 0) and dilation == (1, 1)
    if not disjoint or kernel != stride or any(n * k != s for n, k, s in zip(windows, kernel, sizes, strict=True)):
        encoder.fill(out, 0)
    _pool(encoder, "max_pool_backward", [out, gradient, indices], out, gradient, _window(given), disjoint)


def _pool(
    encoder: Encoder, name: str, operands: Sequence[Tensor], x: Tensor, y: Tensor, pairs: Pairs, disjoint: bool = False
) -> None:
    operands = [_images(each) for each in operands]
    wholes = [*(size for pair in pairs for size in pair), *_images(x).shape[2:]]
    record = encoder.add(name, operands, Loops((), ((),) * len(operands)), [float(disjoint)], wholes)
    for position, size in enumerate(_images(y).shape):
        record.size[position] = size
    for number, each in enumerate(operands):
        for position, step in enumerate(bytes_apart(each)):
            record.stride[number][position] = step


def _average(encoder: Encoder, out: Tensor, x: Tensor, *window: Any) -> None:
    """Add up the images at each place of a window."""
    encoder.fill(out, 0)
    for outs, ins, share in _places(_images(out), _images(x), window):
        encoder.compute("add", outs, outs, ins, numbers=[share])


def _average_backward(encoder: Encoder, out: Tensor, gradient: Tensor, x: Tensor, *window: Any) -> None:
    encoder.fill(out, 0)
    for outs, ins, share in _places(_images(gradient), _images(out), window):
        encoder.compute("add", ins, ins, outs, numbers=[share])


def _places(y: Tensor, x: Tensor, window: Sequence[Any]) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yield the windows that have a number at a place of theirs, those numbers, and their share of an average."""
    defaults: tuple[Any, ...] = ([], 0, False, True, None)
    kernel, stride, padding, ceil, with_padding, divisor = (*window, *defaults[len(window) - 1 :])
    (rows, columns), (down, right), (top, left) = _pair(kernel), _pair(stride or kernel), _pair(padding)
    if ceil or (not with_padding and (top or left)):
        raise CannotCompile("averages of windows of different sizes")
    for i in range(rows):
        for j in range(columns):
            ys, xs = reach(y.shape[2], x.shape[2], i - top, down), reach(y.shape[3], x.shape[3], j - left, right)
            part = x[:, :, numbers_of(ys, i - top, down), numbers_of(xs, j - left, right)]
            if part.numel():
                yield y[:, :, ys, xs], part, 1 / (divisor or rows * columns)


def reach(windows: int, size: int, offset: int, stride: int) -> slice:
    """Return the windows whose number at an offset is in the image."""
    first = max(0, -(offset // stride))
    return slice(first, max(first, min(windows, (size - 1 - offset) // stride + 1)))


def numbers_of(windows: slice, offset: int, stride: int) -> slice:
    """Return the numbers at an offset of some windows."""
    first = windows.start * stride + offset
    return slice(
        first,
        first + (windows.stop - windows.start - 1) * stride + 1 if windows.stop > windows.start else first,
        stride,
    )


def _adaptive(y: Tensor, x: Tensor) -> tuple[Any, ...]:
    sizes, counts = _images(x).shape[2:], _images(y).shape[2:]
    if any(size % count for size, count in zip(sizes, counts, strict=True)):
        raise CannotCompile("averages of windows of different sizes")
    return ([size // count for size, count in zip(sizes, counts, strict=True)],)


def _adaptive_average(encoder: Encoder, out: Tensor, x: Tensor, _: Any) -> None:
    _average(encoder, out, x, *_adaptive(out, x))


def _adaptive_average_backward(encoder: Encoder, out: Tensor, gradient: Tensor, x: Tensor) -> None:
    _average_backward(encoder, out, gradient, x, *_adaptive(gradient, x))


def _images(x: Tensor) -> Tensor:
    return x if x.dim() == 4 else x.unsqueeze(0)


def _window(given: Sequence[Any]) -> Pairs:
    defaults: tuple[Any, ...] = ([], 0, 1)
    kernel, stride, padding, dilation, *_ = (*given, *defaults[len(given) - 1 :])
    return [_pair(each) for each in (kernel, stride or kernel, padding, dilation)]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    given = (value,) if isinstance(value, int) else tuple(value)
    return given[0], given[-1]


ENCODINGS: dict[Any, Encoding] = {
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    aten.avg_pool2d.default: _average,
    aten.avg_pool2d_backward.default: _average_backward,
    aten._adaptive_avg_pool2d.default: _adaptive_average,
    aten._adaptive_avg_pool2d_backward.default: _adaptive_average_backward,
}
