"""Step sizes that follow the signs of the gradient, or the number of the step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clipbench.plugins.decorators import optimizer

Slots = Mapping[str, Tensor]
Stepped = tuple[Tensor, dict[str, Tensor]]


@optimizer(torch_class=torch.optim.Rprop, slots={"prev": 0.0, "step_size": 0.0})
def rprop(
    w: Tensor,
    g: Tensor,
    slots: Slots,
    t: Tensor,
    lr: Tensor,
    etas: tuple[float, float] = (0.5, 1.2),
    step_sizes: tuple[float, float] = (1e-6, 50),
) -> Stepped:
    """Steps that depend on signs of the gradient alone, each element with its own step size.

    Riedmiller and Braun 1993; torch.optim.Rprop"""
    agreement = g * slots["prev"]
    factor = torch.where(agreement > 0, etas[1], torch.where(agreement < 0, etas[0], torch.ones_like(w)))
    # The first step size is the learning rate; a slot starts with a number.
    size = torch.clamp(torch.where(t == 1, lr, slots["step_size"]) * factor, *step_sizes)
    g = torch.where(agreement < 0, 0.0, g)
    return torch.addcmul(w, torch.sign(g), size, value=-1), {"prev": g, "step_size": size}


@optimizer(torch_class=torch.optim.ASGD, slots={}, scalars={"eta": 0.0})
def asgd(
    w: Tensor,
    g: Tensor,
    slots: Slots,
    t: Tensor,
    lr: Tensor,
    lambd: float = 1e-4,
    alpha: float = 0.75,
    t0: float = 1e6,
    weight_decay: float = 0.0,
) -> Stepped:
    """Averaged stochastic gradient descent.

    Polyak and Juditsky 1992; torch.optim.ASGD"""
    # The mean of the weights since step t0, which torch keeps too, has no effect on the weights and is left out.
    if weight_decay:
        g = torch.add(g, w, alpha=weight_decay)
    eta = torch.where(t == 1, lr, slots["eta"])
    new_w = torch.addcmul(w * (1 - lambd * eta), g, eta, value=-1)
    return new_w, {"eta": lr / torch.pow(1 + lambd * lr * t, alpha)}
