"""Rules that change the weights after every step of the optimizer, and not the gradient."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from clipbench.plugins.decorators import strategy

Eps = Annotated[float, Ge(0)]


@strategy(per="element", on="weights", search=(1e-3, 1e1), loose=math.inf, clamps=True)
def weight_clamp(new: Tensor, threshold: Tensor) -> Tensor:
    """Clamp every weight to [-threshold, threshold] after the optimizer's step.

    clamp(w, -c, c)                 WGAN (c = 0.01): Arjovsky et al. 2017, arXiv:1701.07875
    """
    return torch.maximum(torch.minimum(new, threshold), -threshold)


@strategy(per="unit", on="weights", search=(1e-1, 1e1), loose=math.inf)
def max_norm(w: Tensor, threshold: Tensor, eps: Eps = 1e-7) -> tuple[Tensor, Tensor]:
    """Scale each unit's weights so that their norm is at most `threshold` after the optimizer's step.

    w_u * min(1, c / (|w_u| + eps))     Srivastava et al. 2014, JMLR 15; Keras MaxNorm (c = 2), Lasagne norm_constraint
    """
    return (threshold / (w + eps)).clamp(max=1), w > threshold


@strategy(
    per="element", on="weights", search=(1e-4, 1e0), loose=math.inf, at_zero="every weight is halved at every step"
)
def halve(new: Tensor, old: Tensor, g: Tensor, threshold: Tensor) -> Tensor:
    """Set a weight whose absolute gradient is above `threshold` to minus half its value; the others take their step.

    -w_old / 2 where |g| > c, else w    a reading of "set it to minus half", compare iRPROP's backtracking
    """
    return torch.where(g.abs() > threshold, -old / 2, new)
