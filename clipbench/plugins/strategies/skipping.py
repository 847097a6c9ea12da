"""Rules that skip a whole step. The condition is `n <= c`, not `n > c`, so that NaN is skipped too."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clipbench.plugins.decorators import strategy


@strategy(per="step", search=(1e-1, 1e2), loose=math.inf, refuses=True, threshold_is_norm=True)
def skip(n: Tensor, threshold: Tensor) -> Tensor:
    """Skip the step if the norm is above `threshold`: weights and optimizer state do not change.

    step if n <= c                  Megatron-LM grad_norm_skip_threshold
    """
    return n <= threshold


@strategy(per="step", refuses=True)
def skip_nonfinite(n: Tensor) -> Tensor:
    """Skip the step if the gradient or its norm is not finite: weights and optimizer state do not change.

    step if n is finite             optax.apply_if_finite, without its limit; loss scalers of mixed precision
    """
    return n.isfinite()


@strategy(per="element", search=(1e-1, 1e2), loose=math.inf, refuses=True, bounds=True, threshold_is_norm=True)
def drop(g: Tensor, model_n: Tensor, threshold: Tensor) -> Tensor:
    """Step with a zero gradient if the norm is above `threshold`: momentum and weight decay still act.

    g where n <= c, else 0          axlearn clip_by_global_norm(drop_norm=c)
    """
    return torch.where(model_n <= threshold, g, 0.0)
