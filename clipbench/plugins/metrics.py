"""Metrics: functions of a model's output and the target that return a scalar, and their direction."""

from __future__ import annotations

import torch
from torch import Tensor

from clipbench.plugins.decorators import metric


@metric(higher_is_better=True)
def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Share of examples whose largest score is that of the target; a single score must have the right sign.

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


@metric(higher_is_better=True)
def balanced_accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Mean recall over the classes in the data: rare classes count as much as others.

    mean_c(right of c / all of c)
    """
    chosen, true = _one_hot_columns(output, target, both=True)
    there = true.sum(0)
    recalls = (chosen * true).sum(0) / there.clamp(min=1)
    return (recalls * (there > 0)).sum() / (there > 0).sum()


@metric(higher_is_better=True)
def f1(output: Tensor, target: Tensor) -> Tensor:
    """Harmonic mean of precision and recall: of class 1 for one score, otherwise the mean over classes or labels.

    2 TP / (2 TP + FP + FN)
    """
    chosen, true = _one_hot_columns(output, target, both=False)
    sizes = chosen.sum(0) + true.sum(0)
    scores = 2 * (chosen * true).sum(0) / sizes.clamp(min=1)
    known = (sizes > 0) | (target.ndim == output.ndim)  # a class that does not occur is left out, a label is not
    return (scores * known).sum() / known.sum().clamp(min=1)


def _one_hot_columns(output: Tensor, target: Tensor, both: bool) -> tuple[Tensor, Tensor]:
    """Return predictions and targets as columns of 0 and 1, one per class or label; `both`: also of its absence."""
    if output.shape != target.shape and output.shape[-1] > 1:
        names = torch.arange(output.shape[-1], device=output.device)
        chosen, true = output.argmax(-1).unsqueeze(-1) == names, target.unsqueeze(-1) == names
    else:
        columns = target.shape[-1] if target.ndim > 1 else 1
        chosen, true = output.reshape(-1, columns) > 0, target.reshape(-1, columns) > 0.5
        if both:
            chosen, true = torch.cat([chosen, ~chosen], dim=1), torch.cat([true, ~true], dim=1)
    columns = true.shape[-1]
    return chosen.reshape(-1, columns).to(output.dtype), true.reshape(-1, columns).to(output.dtype)
