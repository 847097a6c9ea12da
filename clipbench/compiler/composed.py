"""Operators as functions of others; those that torch has import what takes as long as torch itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

from clipbench.compiler.trace import aten

NONE, MEAN = 0, 1  # of the reductions of a loss; the other one is the sum


def _reduced(loss: Tensor, reduction: int) -> Tensor:
    return loss if reduction == NONE else loss.mean() if reduction == MEAN else loss.sum()


def _share(gradient: Tensor, x: Tensor, reduction: int) -> Tensor:
    return gradient / x.numel() if reduction == MEAN else gradient


def _smooth_l1(x: Tensor, y: Tensor, reduction: int = MEAN, beta: float = 1.0) -> Tensor:
    size = (x - y).abs()
    return _reduced(torch.where(size < beta, size * size * (0.5 / beta), size - 0.5 * beta), reduction)


def _smooth_l1_backward(gradient: Tensor, x: Tensor, y: Tensor, reduction: int, beta: float) -> Tensor:
    gap = x - y
    return torch.where(gap.abs() < beta, gap / beta, gap.sign()) * _share(gradient, x, reduction)


def _huber(x: Tensor, y: Tensor, reduction: int = MEAN, delta: float = 1.0) -> Tensor:
    size = (x - y).abs()
    return _reduced(torch.where(size <= delta, size * size * 0.5, delta * (size - 0.5 * delta)), reduction)


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    return torch.where(x > 0, x * scale, (x * input_scale).expm1() * (alpha * scale))


def _elu_backward(
    gradient: Tensor, alpha: float, scale: float, input_scale: float, is_result: bool, x: Tensor
) -> Tensor:
    low = x + alpha * scale if is_result else (x * input_scale).exp() * (alpha * scale)
    return gradient * torch.where(x <= 0, low * input_scale, scale)


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    return torch.where(x * beta > threshold, x, (x * beta).exp().log1p() / beta)


def _softplus_backward(gradient: Tensor, x: Tensor, beta: float, threshold: float) -> Tensor:
    return gradient * torch.where(x * beta > threshold, 1.0, (x * beta).sigmoid())


def _log_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    rest = (-x.abs()).exp()
    return x.clamp(max=0) - rest.log1p(), rest


def _logsumexp(x: Tensor, dims: list[int], keepdim: bool = False) -> Tensor:
    largest = x.amax(dims, keepdim=True)
    top = torch.where(largest.abs() == torch.inf, 0.0, largest)
    total = (x - top).exp().sum(dims, keepdim=keepdim).log()
    return total + (top if keepdim else top.view(total.shape))


def _weights(x: Tensor, target: Tensor, weight: Tensor | None, ignored: int) -> tuple[Tensor, Tensor]:
    """Return the classes, 0 where they are ignored, and their weights."""
    valid = target != ignored
    classes = torch.where(valid, target, 0)
    return classes.unsqueeze(1), valid.to(x.dtype) if weight is None else torch.where(valid, weight[classes], 0.0)


def _nll(x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int) -> Any:
    if x.dim() != 2:
        return decomposition_table[aten.nll_loss_forward.default](x, target, weight, reduction, ignored)
    classes, weights = _weights(x, target, weight, ignored)
    losses, total = x.gather(1, classes).squeeze(1) * -weights, weights.sum()
    if reduction == NONE:
        return losses, torch.zeros_like(total)
    return losses.sum() / total if reduction == MEAN else losses.sum(), total


def _nll_backward(
    gradient: Tensor, x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int, total: Tensor
) -> Any:
    if x.dim() != 2:
        function = decomposition_table[aten.nll_loss_backward.default]
        return function(gradient, x, target, weight, reduction, ignored, total)
    classes, weights = _weights(x, target, weight, ignored)
    slope = -weights * (gradient / total if reduction == MEAN else gradient)
    return torch.zeros_like(x).scatter(1, classes, slope.unsqueeze(1))


def _triangle(x: Tensor, diagonal: int, upper: bool) -> Tensor:
    across = torch.arange(x.shape[-1]) - torch.arange(x.shape[-2]).unsqueeze(1)
    return torch.where(across >= diagonal if upper else across <= diagonal, x, 0)


COMPOSED: dict[Any, Callable[..., Any]] = {
    aten.mse_loss.default: lambda x, y, reduction=MEAN: _reduced((x - y).square(), reduction),
    aten.mse_loss_backward.default: lambda g, x, y, reduction: (x - y) * 2 * _share(g, x, reduction),
    aten.smooth_l1_loss.default: _smooth_l1,
    aten.smooth_l1_loss_backward.default: _smooth_l1_backward,
    aten.huber_loss.default: _huber,
    aten.huber_loss_backward.default: lambda g, x, y, reduction, delta: (
        (x - y).clamp(-delta, delta) * _share(g, x, reduction)
    ),
    aten.nll_loss_forward.default: _nll,
    aten.nll_loss_backward.default: _nll_backward,
    aten.elu.default: _elu,
    aten.elu_backward.default: _elu_backward,
    aten.softplus.default: _softplus,
    aten.softplus_backward.default: _softplus_backward,
    aten.mish.default: lambda x: x * x.exp().log1p().tanh(),
    aten.log_sigmoid_forward.default: _log_sigmoid,
    aten.log_sigmoid_backward.default: lambda g, x, _: g * (-x).sigmoid(),
    aten.hardtanh_backward.default: lambda g, x, low, high: torch.where((x <= low) | (x >= high), 0.0, g),
    aten.hardswish.default: lambda x: x * (x + 3).clamp(0, 6) / 6,
    aten.hardswish_backward.default: lambda g, x: torch.where(x < -3, 0.0, torch.where(x <= 3, g * (x / 3 + 0.5), g)),
    aten.hardsigmoid.default: lambda x: (x + 3).clamp(0, 6) / 6,
    aten.hardsigmoid_backward.default: lambda g, x: torch.where((x > -3) & (x < 3), g / 6, 0.0),
    aten.logsumexp.default: _logsumexp,
    aten.tril.default: lambda x, diagonal=0: _triangle(x, diagonal, False),
    aten.triu.default: lambda x, diagonal=0: _triangle(x, diagonal, True),
}
