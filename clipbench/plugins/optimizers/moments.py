"""Adam and its relatives: steps along the mean of the gradients, scaled by the mean of their squares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clipbench.plugins.decorators import optimizer

Slots = Mapping[str, Tensor]
Stepped = tuple[Tensor, dict[str, Tensor]]
Betas = tuple[float, float]

LOG_OF_ZERO = -1000.0  # its exponential is 0
MOMENTS = {"exp_avg": 0.0, "exp_avg_sq": 0.0}


@optimizer(
    torch_class=torch.optim.Adam,
    slots=MOMENTS | {"max_exp_avg_sq": 0.0},
    only_with={"max_exp_avg_sq": "amsgrad"},
)
def adam(
    w: Tensor,
    g: Tensor,
    slots: Slots,
    t: Tensor,
    lr: Tensor,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    decoupled_weight_decay: bool = False,
) -> Stepped:
    """Steps scaled by running moments of the gradient.

    w - lr m / (sqrt(v) + eps)      Kingma and Ba 2014, arXiv:1412.6980; torch.optim.Adam"""
    w, g = _decayed(w, g, lr, weight_decay, decoupled_weight_decay)
    new = _moments(g, slots, betas)
    if amsgrad:
        new["max_exp_avg_sq"] = torch.maximum(slots["max_exp_avg_sq"], new["exp_avg_sq"])
    square = new["max_exp_avg_sq"] if amsgrad else new["exp_avg_sq"]
    # m / bias1 / (sqrt(v / bias2) + eps) = m (root / bias1) / (sqrt(v) + root eps), with root = sqrt(bias2)
    root = torch.sqrt(_sum_of_weights(betas[1], t))
    scale = lr * root / _sum_of_weights(betas[0], t)
    return torch.addcdiv(w, new["exp_avg"] * -scale, torch.sqrt(square) + root * eps), new


@optimizer(
    torch_class=torch.optim.AdamW,
    slots=MOMENTS | {"max_exp_avg_sq": 0.0},
    only_with={"max_exp_avg_sq": "amsgrad"},
)
def adamw(
    w: Tensor,
    g: Tensor,
    slots: Slots,
    t: Tensor,
    lr: Tensor,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
) -> Stepped:
    """Adam with decoupled weight decay.

    w (1 - lr decay) - lr m / (sqrt(v) + eps)       Loshchilov and Hutter 2017, arXiv:1711.05101"""
    return adam(w, g, slots, t, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True)


@optimizer(torch_class=torch.optim.Adamax, slots={"exp_avg": 0.0, "exp_inf": 0.0})
def adamax(
    w: Tensor,
    g: Tensor,
    slots: Slots,
    t: Tensor,
    lr: Tensor,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Stepped:
    """Adam with the infinity norm.

    w - lr m / u, u = max(b2 u, |g|)    Kingma and Ba 2014, arXiv:1412.6980; torch.optim.Adamax"""
    w, g = _decayed(w, g, lr, weight_decay, decoupled=False)
    mean = torch.lerp(slots["exp_avg"], g, 1 - betas[0])
    norm = torch.maximum(slots["exp_inf"] * betas[1], torch.abs(g) + eps)
    scale = lr / _sum_of_weights(betas[0], t)
    return torch.addcdiv(w, mean * -scale, norm), {"exp_avg": mean, "exp_inf": norm}


@optimizer(torch_class=torch.optim.NAdam, slots=MOMENTS, scalars={"mu_product": 1.0})
def nadam(
    w: Tensor,
    g: Tensor,
    slots: Slots,
    t: Tensor,
    lr: Tensor,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum_decay: float = 4e-3,
    decoupled_weight_decay: bool = False,
) -> Stepped:
    """Adam with Nesterov momentum.

    Dozat 2016; torch.optim.NAdam"""
    w, g = _decayed(w, g, lr, weight_decay, decoupled_weight_decay)
    new = _moments(g, slots, betas)
    # The momentum mu rises from b1 / 2 to b1; each of g and m is divided by the sum of weights that comes with it.
    lack, lack_next = (0.5 * torch.exp(each * (momentum_decay * math.log(0.96))) for each in (t, t + 1))
    product = slots["mu_product"] * (betas[0] * (1 - lack))
    mu_next = betas[0] * (1 - lack_next)
    root = torch.sqrt(_sum_of_weights(betas[1], t))
    of_g = lr * root * ((1 - betas[0]) + betas[0] * lack) / (1 - product)
    of_mean = lr * root * mu_next / (1 - product * mu_next)
    step = torch.addcmul(of_g * g, of_mean, new["exp_avg"])
    divisor = torch.sqrt(new["exp_avg_sq"]) + root * eps
    return torch.addcdiv(w, step, divisor, value=-1), new | {"mu_product": product}


@optimizer(torch_class=torch.optim.RAdam, slots=MOMENTS)
def radam(
    w: Tensor,
    g: Tensor,
    slots: Slots,
    t: Tensor,
    lr: Tensor,
    betas: Betas = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
) -> Stepped:
    """Adam whose variance is rectified in the first steps.

    Liu et al. 2019, arXiv:1908.03265; torch.optim.RAdam"""
    w, g = _decayed(w, g, lr, weight_decay, decoupled_weight_decay)
    new = _moments(g, slots, betas)
    scale = lr / _sum_of_weights(betas[0], t)
    longest = 2 / (1 - betas[1]) - 1
    if longest <= 5:  # no step is ever rectified
        return torch.addcmul(w, new["exp_avg"], scale, value=-1), new
    length = _length(betas[1], t)
    rectified = length > 5
    length = torch.clamp(length, min=5)
    share = (length - 4) * (length - 2) / length * (longest / ((longest - 4) * (longest - 2)))
    scale = torch.where(rectified, scale * torch.sqrt(share * _sum_of_weights(betas[1], t)), scale)
    divisor = torch.where(rectified, torch.sqrt(new["exp_avg_sq"]) + eps, 1.0)
    return torch.addcdiv(w, new["exp_avg"] * -scale, divisor), new


def _decayed(w: Tensor, g: Tensor, lr: Tensor, weight_decay: float, decoupled: bool) -> tuple[Tensor, Tensor]:
    """Return weights and gradient, of which one has the weight decay in it."""
    if not weight_decay:
        return w, g
    return (w * (1 - lr * weight_decay), g) if decoupled else (w, torch.add(g, w, alpha=weight_decay))


def _moments(g: Tensor, slots: Slots, betas: Betas) -> dict[str, Tensor]:
    """Return the new running means of the gradient and of its square, which are too small in the first steps."""
    mean = torch.lerp(slots["exp_avg"], g, 1 - betas[0])
    return {"exp_avg": mean, "exp_avg_sq": torch.addcmul(slots["exp_avg_sq"] * betas[1], g, g, value=1 - betas[1])}


def _sum_of_weights(beta: float, t: Tensor) -> Tensor:
    """Return 1 - beta^t, the sum of the weights of t gradients in a running mean."""
    return -torch.expm1(t * (math.log(beta) if beta else LOG_OF_ZERO))


def _length(beta: float, t: Tensor) -> Tensor:
    """Return rho, the number of equally weighted gradients whose mean varies as much as a running mean of t.

    It is rho_inf - 2 t b^t / (1 - b^t), with rho_inf = 2 / (1 - b) - 1: at first a small difference of large numbers.
    With L = -log b it is coth(L / 2) + t - t coth(t L / 2) too, and 1 / y can be subtracted from each coth(y).
    """
    half = -math.log(beta) / 2
    y = half * t
    early = t - t * _coth_less_inverse(y) + _coth_less_inverse(half)
    late = 2 / (1 - beta) - 1 - 2 * t / torch.expm1(2 * y)
    return torch.where(y < 0.5, early, late)


def _coth_less_inverse(y: Any) -> Any:
    """Return coth(y) - 1 / y for y < 1 / 2, by Lambert's continued fraction y / (3 + y^2 / (5 + y^2 / (7 + ...)))."""
    square = y * y
    rest = 11 + square / 13
    for odd in (9, 7, 5, 3):
        rest = odd + square / rest
    return y / rest
