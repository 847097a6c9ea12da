"""Rules that refuse a step as a whole. NaN is refused too: written as `n <= c`, never as `n > c`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clipbench.plugins.registry import strategy


@strategy(per="step", search=(1e-1, 1e2), loose=math.inf, refuses=True, threshold_is_norm=True)
def skip(n: Tensor, threshold: Tensor) -> Tensor:
    """Do not step at all when the norm is over `threshold`: weights and optimizer state stay as they were.

    step if n <= c                  Megatron-LM grad_norm_skip_threshold
    """
    return n <= threshold


@strategy(per="step", refuses=True)
def skip_nonfinite(n: Tensor) -> Tensor:
    """Do not step at all when the gradient, or its norm, is not finite: everything stays as it was.

    step if n is finite             optax.apply_if_finite, without its limit; loss scalers of mixed precision
    """
    return n.isfinite()


@strategy(per="element", search=(1e-1, 1e2), loose=math.inf, refuses=True, bounds=True, threshold_is_norm=True)
def drop(g: Tensor, model_n: Tensor, threshold: Tensor) -> Tensor:
    """Step with a zero gradient when the norm is over `threshold`: momentum and weight decay still move.

    g where n <= c, else 0          axlearn clip_by_global_norm(drop_norm=c)
    """
    return torch.where(model_n <= threshold, g, 0.0)
