"""Losses: functions of a model's output and the target that return a scalar."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from clipbench.plugins.decorators import loss

# From so many on, their scores fill the registers of a core.
MANY_CLASSES = 32


@loss(quiet=("label_smoothing",))
def cross_entropy(
    output: Tensor, target: Tensor, training: bool = True, label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
) -> Tensor:
    """Cross entropy of class scores and classes, or probabilities of them; labels are smoothed in training alone.

    mean(log sum exp(o) - (1 - s) o[target] - s mean(o))       s: Szegedy et al. 2016, arXiv:1512.00567
    """
    # Few classes first: log_softmax over a short last axis is slow, and so is F.cross_entropy's ignored index.
    axis = 0 if output.shape[-1] < MANY_CLASSES else -1
    scores = output.movedim(-1, axis).log_softmax(axis)
    if target.is_floating_point():
        if target.shape != output.shape or output.shape[-1] < 2:
            raise ValueError("real targets must be probabilities of at least two classes, in the shape of the output")
        plain = -(target.movedim(-1, axis) * scores).sum(axis).mean()
    else:
        plain = -scores.gather(axis, target.unsqueeze(axis)).mean()
    if not (training and label_smoothing):
        return plain
    return (1 - label_smoothing) * plain - label_smoothing * scores.mean()


@loss()
def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error.

    mean((o - y)^2)
    """
    return F.mse_loss(output.reshape(target.shape), target)


@loss()
def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error.

    mean(|o - y|)
    """
    return F.l1_loss(output.reshape(target.shape), target)


@loss()
def huber(output: Tensor, target: Tensor, delta: float = 1.0) -> Tensor:
    """Squared error near zero, absolute error beyond `delta`.

    mean(e^2 / 2 where |e| <= d, else d (|e| - d / 2))
    """
    return F.huber_loss(output.reshape(target.shape), target, delta=delta)


@loss(metrics=("accuracy",))
def bce(output: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy of one score (a logit) and a target of 0 or 1.

    mean(log(1 + exp(o)) - y o)
    """
    return F.binary_cross_entropy_with_logits(output.reshape(target.shape), target.to(output.dtype))


@loss(metrics=("accuracy",))
def logistic(output: Tensor, target: Tensor) -> Tensor:
    """Logistic loss of one score and a target of 0 or 1: another name of `bce`.

    mean(log(1 + exp(-z))), z = (2 y - 1) o
    """
    return -F.logsigmoid(_margin(output, target)).mean()


@loss(metrics=("accuracy",))
def huberised(output: Tensor, target: Tensor, tau: Annotated[float, Gt(0), Lt(1)] = 0.2689414213699951) -> Tensor:
    """Logistic loss, but linear where its slope would exceed `tau`: clipping each example minimizes this loss.

    mean(log(1 + exp(-z)) where sigmoid(-z) <= t, else -t z - log(1 - t) - t log(t / (1 - t)))    Menon et al. 2020
    """
    margin = _margin(output, target)
    linear = -tau * margin - math.log(1 - tau) - tau * math.log(tau / (1 - tau))
    return torch.where(torch.sigmoid(-margin) <= tau, -F.logsigmoid(margin), linear).mean()


@loss(metrics=("accuracy",))
def partially_huberised(output: Tensor, target: Tensor, tau: Annotated[float, Gt(1)] = 2.0) -> Tensor:
    """Cross entropy, but linear in the probability p of the true class where p < 1 / `tau`: bounded, and so robust.

    mean(-log p where p >= 1 / t, else -t p + log t + 1)    Menon et al. 2020, PHuber; of one score or of class scores
    """
    if output.ndim > target.ndim and output.shape[-1] > 1:
        log_p = output.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    else:
        log_p = F.logsigmoid(_margin(output, target))
    p = log_p.exp()
    return torch.where(p * tau >= 1, -log_p, math.log(tau) + 1 - tau * p).mean()


def _margin(output: Tensor, target: Tensor) -> Tensor:
    """Return the margin of one score: positive if it is on the side of its target of 0 or 1."""
    return (2 * target.to(output.dtype) - 1) * output.reshape(target.shape)
