"""Convolution and pooling as patches and matrix products, which are fast under `vmap`.

`vmap` turns a convolution into a grouped one, several times slower than the products below. Activations are in memory
as [C, H, W, B], with the batch innermost: patches are copied in long runs, and each model needs one product. For the
model their shape is still [B, C, H, W].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clipbench.engine.layers.autocast import rounded

Pair = tuple[int, int]
Margins = tuple[int, int, int, int]

# Fewer rows of a matrix do not fill a register of 16 numbers.
NARROW = 16


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor | None:
    if groups != 1 or input.dim() != 4:
        return None
    steps, spread = _pair(stride), _pair(dilation)
    size: Pair = (weight.shape[2], weight.shape[3])
    margins = _margins(padding, size, spread)
    images = input.permute(1, 2, 3, 0)
    if steps == (1, 1) and len(weight) <= len(images):  # otherwise a product sums over few channels, many times
        result = _slid(images, weight, margins, spread)
    else:
        result, _ = _convolved(images, weight, steps, margins, spread)
    if bias is not None:
        result = result + bias.view(-1, 1, 1, 1)
    return result.permute(3, 0, 1, 2)


def _batch_innermost(pool: Callable[..., Any]) -> Callable[..., Any]:
    """Return pooling with the batch as the channels of `channels_last`, whose kernels are vectorized."""

    def pooled(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        if kwargs.pop("return_indices", False) or input.dim() != 4:
            return None
        images = input.permute(1, 2, 3, 0).contiguous().permute(0, 3, 1, 2)
        return pool(images, *args, **kwargs).transpose(0, 1)

    return pooled


def _mean_of_images(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor | None:
    if input.dim() != 4 or output_size not in (1, (1, 1), [1, 1]):
        return None
    return input.permute(1, 2, 3, 0).flatten(1, 2).mean(1).mT[:, :, None, None]


REPLACEMENTS: dict[Any, Callable[..., Tensor | None]] = {
    torch.conv2d: rounded(_conv2d),
    functional.conv2d: rounded(_conv2d),
    torch.max_pool2d: _batch_innermost(torch.max_pool2d),
    functional.max_pool2d: _batch_innermost(torch.max_pool2d),
    functional.adaptive_avg_pool2d: _mean_of_images,
    functional.avg_pool2d: _batch_innermost(functional.avg_pool2d),
}


class _Convolution(torch.autograd.Function):
    """[C, H, W, B] and [O, C, h, w] -> [O, H', W', B]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, weight: Tensor, steps: Pair, margins: Margins, spread: Pair) -> tuple[Tensor, Tensor]:
        patches, shape = _patches(images, (weight.shape[2], weight.shape[3]), steps, margins, spread)
        flat = weight.flatten(1) @ patches
        return flat.view(weight.shape[0], *shape, images.shape[3]), patches

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        images, weight, ctx.steps, ctx.margins, ctx.spread = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(weight, output[1])
        ctx.shape = images.shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Any, ...]:
        weight, patches = ctx.saved_tensors
        flat = gradient.flatten(1)
        # With the few rows on the left, this long contraction takes twice the time.
        for_weight = (patches @ flat.mT).mT.reshape(weight.shape)
        for_images = None
        if ctx.needs_input_grad[0]:
            parts = (weight.flatten(1).mT @ flat).view(-1, *weight.shape[2:], *gradient.shape[1:])
            for_images = _folded(parts, ctx.shape, ctx.steps, ctx.margins, ctx.spread)
        return for_images, for_weight, None, None, None


_convolved: Callable[..., tuple[Tensor, Tensor]] = _Convolution.apply


class _Sliding(torch.autograd.Function):
    """The same with stride 1: a product for each row of the kernel, on patches that are one row high.

    A patch one row further down is one row further on in memory: patches are copied for the columns of the kernel
    only. The gradient of the images slides in the opposite direction.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, weight: Tensor, margins: Margins, spread: Pair) -> Tensor:
        (high, wide), (down, across) = weight.shape[2:], spread
        top, bottom, left, right = margins
        height = images.shape[1] + top + bottom - down * (high - 1)
        width = images.shape[2] + left + right - across * (wide - 1)
        patches = _rows_of_patches(images, [column * across - left for column in range(wide)], width, (top, bottom))
        rows = _moved_down(patches, range(0, high * down, down), height)
        return _sum_of_products(weight.permute(2, 0, 1, 3).flatten(2), rows).view(-1, height, width, images.shape[3])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, weight, ctx.margins, ctx.spread = inputs
        ctx.save_for_backward(images, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        images, weight = ctx.saved_tensors
        (high, wide), (down, across) = weight.shape[2:], ctx.spread
        top, bottom, left, _ = ctx.margins
        reach = down * (high - 1)
        shifts = [left - column * across for column in range(wide)]
        patches = _rows_of_patches(gradient, shifts, images.shape[2], (reach - top, reach - bottom))
        rows = _moved_down(patches, range(reach, -1, -down), images.shape[1])
        products = torch.stack([_along(row, images.flatten(1)) for row in rows])  # [h, O * w, C]
        for_weight = products.view(high, -1, wide, len(images)).permute(1, 3, 0, 2)
        for_images = _sum_of_products(weight.permute(2, 1, 0, 3).flatten(2), rows)
        return for_images.view(images.shape), for_weight, None, None


_slid: Callable[..., Tensor] = _Sliding.apply


def _rows_of_patches(images: Tensor, shifts: Sequence[int], width: int, margins: Pair) -> Tensor:
    """[C, H, W, B] -> [C, w, top + H + bottom, width, B]: for each column of a kernel, the images shifted by it."""
    parts = []
    for shift in shifts:
        met, place = _met(shift, 1, images.shape[2], width)
        parts.append(functional.pad(images[:, :, met], (0, 0, place.start, width - place.stop, *margins)))
    return torch.stack(parts, 1)


def _moved_down(patches: Tensor, starts: Iterable[int], height: int) -> list[Tensor]:
    """Return views of `height` rows from each start: [C * w, height * W * B]."""
    return [patches[:, :, start : start + height].flatten(2).flatten(0, 1) for start in starts]


def _along(one: Tensor, other: Tensor) -> Tensor:
    """Return the products of rows with rows, over many columns; few rows are faster on the left."""
    return (other @ one.mT).mT if len(other) < NARROW else one @ other.mT


def _sum_of_products(weights: Tensor, rows: Sequence[Tensor]) -> Tensor:
    total = weights[0] @ rows[0]
    for weight, row in zip(weights[1:], rows[1:], strict=True):
        total = total + weight @ row
    return total


def _patches(images: Tensor, size: Pair, steps: Pair, margins: Margins, spread: Pair) -> tuple[Tensor, Pair]:
    """[C, H, W, B] -> [C * h * w, H' * W' * B], and (H', W')."""
    top, bottom, left, right = margins
    padded = functional.pad(images, (0, 0, left, right, top, bottom)) if any(margins) else images
    height, width = (
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(padded.shape[1:3], size, steps, spread, strict=True)
    )
    rows, columns = (step * (count - 1) + 1 for step, count in zip(steps, (height, width), strict=True))
    parts = [
        padded[:, row : row + rows : steps[0], column : column + columns : steps[1]]
        for row, column in _places(size, spread)
    ]
    return torch.stack(parts, 1).view(-1, height * width * images.shape[3]), (height, width)


def _folded(parts: Tensor, shape: torch.Size, steps: Pair, margins: Margins, spread: Pair) -> Tensor:
    """The transpose of taking patches: [C, h, w, H', W', B] -> [C, H, W, B]."""
    images = parts.new_zeros(shape)
    places = _places((parts.shape[1], parts.shape[2]), spread)
    for (row, column), part in zip(places, parts.flatten(1, 2).unbind(1), strict=True):
        rows, part_rows = _met(row - margins[0], steps[0], shape[1], part.shape[1])
        columns, part_columns = _met(column - margins[2], steps[1], shape[2], part.shape[2])
        images[:, rows, columns].add_(part[:, part_rows, part_columns])
    return images


def _places(size: Pair, spread: Pair) -> Iterator[Pair]:
    """Yield, for every element of a kernel, the first pixel of the padded image that it is multiplied with."""
    rows, columns = (range(0, n * d, d) for n, d in zip(size, spread, strict=True))
    return product(rows, columns)


def _met(start: int, step: int, length: int, count: int) -> tuple[slice, slice]:
    """Return which pixels of an image are among `count` positions from `start`, and which of the positions they are."""
    first = min(count, max(0, -(start // step)))
    last = max(first, min(count, (length - 1 - start) // step + 1))
    return slice(start + first * step, max(start + (last - 1) * step + 1, 0), step), slice(first, last)


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return first, rest[0] if rest else first


def _margins(padding: int | Sequence[int] | str, size: Pair, spread: Pair) -> Margins:
    """Return the padding at the top, bottom, left and right."""
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(size, spread, strict=True)]
        return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2
    rows, columns = (0, 0) if isinstance(padding, str) else _pair(padding)
    return rows, rows, columns, columns
