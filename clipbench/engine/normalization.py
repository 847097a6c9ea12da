"""Owns normalization: of vectors, and of groups of channels with the batch innermost, as convolutions leave them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class _Normalized(torch.autograd.Function):
    """The input with mean 0 and variance 1 along a dimension, and what it was multiplied with."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, along: int, eps: float) -> tuple[Tensor, Tensor]:
        centred = x - x.mean(along, keepdim=True)
        scale = ((centred * centred).mean(along, keepdim=True) + eps).rsqrt()
        return centred * scale, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.along = inputs[1]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, None, None]:
        result, scale = ctx.saved_tensors
        lost = result * (gradient * result).mean(ctx.along, keepdim=True)
        return scale * (gradient - gradient.mean(ctx.along, keepdim=True) - lost), None, None


_normalized: Callable[..., tuple[Tensor, Tensor]] = _Normalized.apply


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor | None:
    if input.dim() != 4 or input.shape[1] % num_groups:
        return None
    images = input.permute(1, 2, 3, 0)
    result, _ = _normalized(images.reshape(num_groups, -1, len(input)), 1, eps)
    result = result.reshape(images.shape)
    if weight is not None:
        result = result * weight.view(-1, 1, 1, 1)
    if bias is not None:
        result = result + bias.view(-1, 1, 1, 1)
    return result.permute(3, 0, 1, 2)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    if len(normalized_shape) != 1:
        return None
    result, _ = _normalized(input, input.dim() - 1, eps)
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias


REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    functional.group_norm: _group_norm,
    functional.layer_norm: _layer_norm,
}
