"""Steps scaled by sums or running means of squared gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from clipbench.plugins.decorators import optimizer

Slots = Mapping[str, Tensor]
Stepped = tuple[Tensor, dict[str, Tensor]]


@optimizer(torch_class=torch.optim.Adagrad, slots={"sum": "initial_accumulator_value"})
def adagrad(
    w: Tensor,
    g: Tensor,
    slots: Slots,
    t: Tensor,
    lr: Tensor,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
) -> Stepped:
    """Steps scaled by the sum of squared gradients.

    w - lr g / (sqrt(sum g^2) + eps)    Duchi et al. 2011; torch.optim.Adagrad"""
    if weight_decay:
        g = torch.add(g, w, alpha=weight_decay)
    if lr_decay:
        lr = lr / (1 + (t - 1) * lr_decay)
    total = torch.addcmul(slots["sum"], g, g)
    return torch.addcdiv(w, g * -lr, torch.sqrt(total) + eps), {"sum": total}


@optimizer(torch_class=torch.optim.Adadelta, slots={"square_avg": 0.0, "acc_delta": 0.0})
def adadelta(
    w: Tensor,
    g: Tensor,
    slots: Slots,
    t: Tensor,
    lr: Tensor,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
) -> Stepped:
    """Steps scaled by running averages of squared gradients and of squared steps.

    Zeiler 2012, arXiv:1212.5701; torch.optim.Adadelta"""
    if weight_decay:
        g = torch.add(g, w, alpha=weight_decay)
    square = torch.addcmul(slots["square_avg"] * rho, g, g, value=1 - rho)
    step = torch.sqrt(slots["acc_delta"] + eps) / torch.sqrt(square + eps) * g
    steps = torch.addcmul(slots["acc_delta"] * rho, step, step, value=1 - rho)
    return torch.addcmul(w, step, lr, value=-1), {"square_avg": square, "acc_delta": steps}


@optimizer(
    torch_class=torch.optim.RMSprop,
    slots={"square_avg": 0.0, "grad_avg": 0.0, "momentum_buffer": 0.0},
    only_with={"grad_avg": "centered", "momentum_buffer": "momentum"},
)
def rmsprop(
    w: Tensor,
    g: Tensor,
    slots: Slots,
    t: Tensor,
    lr: Tensor,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
) -> Stepped:
    """Steps scaled by a running average of squared gradients.

    w - lr g / (sqrt(v) + eps)      Hinton 2012; torch.optim.RMSprop"""
    if weight_decay:
        g = torch.add(g, w, alpha=weight_decay)
    square = torch.addcmul(slots["square_avg"] * alpha, g, g, value=1 - alpha)
    new, variance = {"square_avg": square}, square
    if centered:
        new["grad_avg"] = mean = torch.lerp(slots["grad_avg"], g, 1 - alpha)
        variance = torch.addcmul(square, mean, mean, value=-1)
    deviation = torch.sqrt(variance) + eps
    if not momentum:
        return torch.addcdiv(w, g * -lr, deviation), new
    new["momentum_buffer"] = buffer = torch.addcdiv(slots["momentum_buffer"] * momentum, g, deviation)
    return torch.addcmul(w, buffer, lr, value=-1), new
