"""Owns group normalization of images with the batch innermost, as convolutions leave them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class _Normalized(torch.autograd.Function):
    """[groups, elements, B] -> the same with mean 0 and variance 1 of the elements, and what it was multiplied with."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        centred = x - x.mean(1, keepdim=True)
        scale = ((centred * centred).mean(1, keepdim=True) + eps).rsqrt()
        return centred * scale, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, None]:
        result, scale = ctx.saved_tensors
        along = (gradient * result).mean(1, keepdim=True)
        return scale * (gradient - gradient.mean(1, keepdim=True) - result * along), None


_normalized: Callable[..., tuple[Tensor, Tensor]] = _Normalized.apply


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor | None:
    if input.dim() != 4 or input.shape[1] % num_groups:
        return None
    images = input.permute(1, 2, 3, 0)
    result, _ = _normalized(images.reshape(num_groups, -1, len(input)), eps)
    result = result.reshape(images.shape)
    if weight is not None:
        result = result * weight.view(-1, 1, 1, 1)
    if bias is not None:
        result = result + bias.view(-1, 1, 1, 1)
    return result.permute(3, 0, 1, 2)


REPLACEMENTS: dict[Any, Callable[..., Any]] = {functional.group_norm: _group_norm}
