"""Metrics: functions of a model's output and the target that return a scalar, and their direction."""

from __future__ import annotations

from torch import Tensor

from clipbench.registry import metric


@metric(higher_is_better=True)
def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Share of examples whose largest score is the target's (or, of a single score, on the right side of 0).

    mean(argmax(o) = y)
    """
    if output.shape == target.shape or output.shape[-1] == 1:
        chosen = (output.reshape(target.shape) > 0).to(target.dtype)
    else:
        chosen = output.argmax(-1)
    return (chosen == target).to(output.dtype).mean()


@metric(higher_is_better=True)
def r2(output: Tensor, target: Tensor) -> Tensor:
    """Coefficient of determination.

    1 - sum((o - y)^2) / sum((y - mean y)^2)
    """
    residual = ((output.reshape(target.shape) - target) ** 2).sum()
    total = ((target - target.mean(0, keepdim=True)) ** 2).sum()
    return 1 - residual / total


@metric(higher_is_better=False)
def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error.

    mean((o - y)^2)
    """
    return ((output.reshape(target.shape) - target) ** 2).mean()


@metric(higher_is_better=False)
def mae(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error.

    mean(|o - y|)
    """
    return (output.reshape(target.shape) - target).abs().mean()
