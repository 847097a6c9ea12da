"""Layer, group and batch normalization, with the batch innermost in memory as after convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class _Normalized(torch.autograd.Function):
    """The input with mean 0 and variance 1 along a dimension, and the factor it was multiplied with."""

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


class _GroupsNormalized(torch.autograd.Function):
    """Groups of channels, [G, C, H * W, B], normalized, then scaled and shifted by channel, [G, C, 1, 1].

    One function, since the gradients of weight and bias are sums that the gradient of the input needs too. It returns
    the mean and the variance of each group too, which have no gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        mean = x.mean((1, 2), keepdim=True)
        centred = x - mean
        variance = (centred * centred).mean((1, 2), keepdim=True)
        scale = (variance + eps).rsqrt()
        return centred * (scale * weight) + bias, mean, variance, centred, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[1], *output[3:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        weight, centred, scale = ctx.saved_tensors
        along = scale * (gradient * centred).sum(2, keepdim=True)
        level = gradient.sum(2, keepdim=True)
        share = scale * weight / (centred.shape[1] * centred.shape[2])
        lost = centred * (scale * (share * along).sum(1, keepdim=True)) + (share * level).sum(1, keepdim=True)
        for_x = gradient * (scale * weight) - lost
        return for_x, along.sum(3, keepdim=True), level.sum(3, keepdim=True), None


_groups_normalized: Callable[..., tuple[Tensor, ...]] = _GroupsNormalized.apply


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor | None:
    if input.dim() != 4 or input.shape[1] % num_groups:
        return None
    groups = input.permute(1, 2, 3, 0).reshape(num_groups, input.shape[1] // num_groups, -1, len(input))
    weight = input.new_ones(input.shape[1]) if weight is None else weight
    bias = input.new_zeros(input.shape[1]) if bias is None else bias
    result, *_ = _groups_normalized(groups, *(w.view(num_groups, -1, 1, 1) for w in (weight, bias)), eps)
    return result.reshape(input.permute(1, 2, 3, 0).shape).permute(3, 0, 1, 2)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    given = running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    return _batch_norm(input, *given, of_batch=False)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    of_batch: bool = True,
) -> Tensor | None:
    """Normalize each channel, of all examples or of each, by the input itself in training or by running statistics."""
    if input.dim() < 2:
        return None  # torch refuses it
    channels, each = input.shape[1], input[:, 0].numel() // (1 if of_batch else len(input))
    if (training and each == 1) or (not training and (running_mean is None or running_var is None)):
        return None  # torch refuses it
    weight = input.new_ones(channels) if weight is None else weight
    bias = input.new_zeros(channels) if bias is None else bias
    if not training:
        assert running_mean is not None and running_var is not None
        scale = weight * (running_var + eps).rsqrt()
        across = (-1, *[1] * (input.dim() - 2))
        return input * scale.view(across) + (bias - running_mean * scale).view(across)
    moved = input.permute(*range(1, input.dim()), 0)
    values = moved.reshape(channels, 1, each, -1)  # a group for each channel
    result, mean, variance, *_ = _groups_normalized(values, *(w.view(-1, 1, 1, 1) for w in (weight, bias)), eps)
    for running, now in ((running_mean, mean), (running_var, each / (each - 1) * variance)):
        if running is not None:
            running.mul_(1 - momentum).add_(momentum * now.mean(3).flatten())
    return result.reshape(moved.shape).permute(-1, *range(input.dim() - 1))


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


def _in_full_precision(normalize: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """Compute in float32 what is bfloat16, as torch does within its kernels."""

    def normalized(input: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
        if input.dtype != torch.bfloat16:
            return normalize(input, *args, **kwargs)
        result = normalize(input.to(torch.float32), *args, **kwargs)
        return None if result is None else result.to(input.dtype)

    return normalized


REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    functional.batch_norm: _in_full_precision(_batch_norm),
    functional.group_norm: _in_full_precision(_group_norm),
    functional.instance_norm: _in_full_precision(_instance_norm),
    functional.layer_norm: _in_full_precision(_layer_norm),
}
