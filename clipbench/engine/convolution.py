"""Owns convolution and pooling as patches and matrix products, which `vmap` keeps fast.

`vmap` turns a convolution into a grouped one, several times slower than the products below. Activations lie in memory as
[C, H, W, B], batch innermost: patches are copied in long runs, and one product per model does the rest. To the model
they look like [B, C, H, W] as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


@contextmanager
def products_for_convolutions() -> Iterator[None]:
    """Within this context a model's two-dimensional convolutions and maxima are computed as above."""
    with _Products():
        yield


class _Products(TorchFunctionMode):
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        replacement = REPLACEMENTS.get(function)
        if replacement is not None:
            result = replacement(*args, **(kwargs or {}))
            if result is not None:
                return result
        return function(*args, **(kwargs or {}))


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
    result: Tensor = _Convolution.apply(input.permute(1, 2, 3, 0), weight, steps, margins, spread)
    if bias is not None:
        result = result + bias.view(-1, 1, 1, 1)
    return result.permute(3, 0, 1, 2)


def _max_pool2d(
    input: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    size = _pair(kernel_size)
    steps = _pair(stride) if stride else size
    if input.dim() != 4 or _pair(padding) != (0, 0) or _pair(dilation) != (1, 1) or ceil_mode or return_indices:
        return None
    result: Tensor = _Maximum.apply(input.permute(1, 2, 3, 0), size, steps)
    return result.permute(3, 0, 1, 2)


REPLACEMENTS: dict[Any, Callable[..., Tensor | None]] = {
    torch.conv2d: _conv2d,
    functional.conv2d: _conv2d,
    torch.max_pool2d: _max_pool2d,
    functional.max_pool2d: _max_pool2d,
}


class _Convolution(torch.autograd.Function):
    """[C, H, W, B] and [O, C, h, w] -> [O, H', W', B]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        images: Tensor, weight: Tensor, steps: Pair, margins: tuple[int, ...], spread: Pair
    ) -> tuple[Tensor, Tensor]:
        patches, shape = _patches(images, (weight.shape[2], weight.shape[3]), steps, margins, spread)
        flat = weight.flatten(1) @ patches
        return flat.view(weight.shape[0], *shape, images.shape[3]), patches
