"""Gradient descent and its momentum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clipbench.plugins.decorators import optimizer


@optimizer(torch_class=torch.optim.SGD, slots={"momentum_buffer": 0.0}, only_with={"momentum_buffer": "momentum"})
def sgd(
    w: Tensor,
    g: Tensor,
    slots: Mapping[str, Tensor],
    t: Tensor,
    lr: Tensor,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Stochastic gradient descent, with momentum, dampening, Nesterov's form and weight decay.

    w - lr (momentum b + g)         torch.optim.SGD"""
    if weight_decay:
        g = torch.add(g, w, alpha=weight_decay)
    if not momentum:
        return torch.addcmul(w, g, lr, value=-1), {}
    added = g * (1 - dampening * torch.clamp(t - 1, max=1)) if dampening else g  # the first gradient as a whole
    buffer = torch.add(added, slots["momentum_buffer"], alpha=momentum)
    step = torch.add(g, buffer, alpha=momentum) if nesterov else buffer
    return torch.addcmul(w, step, lr, value=-1), {"momentum_buffer": buffer}
