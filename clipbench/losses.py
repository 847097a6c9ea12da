"""Losses: functions of a model's output and the target that return a scalar."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from clipbench.registry import loss


@loss()
def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of class scores and integer targets.

    mean(log sum exp(o) - o[target])
    """
    # Classes first: log_softmax over a short last axis is slow, and so is F.cross_entropy's ignored index.
    scores = output.movedim(-1, 0).log_softmax(0)
    return -scores.gather(0, target.unsqueeze(0)).mean()


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
    """Squared near zero, linear beyond `delta`.

    mean(e^2 / 2 where |e| <= d, else d (|e| - d / 2))
    """
    return F.huber_loss(output.reshape(target.shape), target, delta=delta)


@loss()
def bce(output: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy of one score (a logit) and a target of 0 or 1.

    mean(log(1 + exp(o)) - y o)
    """
    return F.binary_cross_entropy_with_logits(output.reshape(target.shape), target.to(output.dtype))
