"""Rules that scale by a norm: one coefficient for the whole model, each tensor or each unit."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from clipbench.plugins.decorators import strategy

Scaling = tuple[Tensor, Tensor]  # coefficient, fired
P = Annotated[float, Gt(0)]  # of a p-norm; .inf is the largest element
Eps = Annotated[float, Ge(0)]


@strategy(per="model", clips=False)
def none(n: Tensor) -> Scaling:
    """Leave the gradient unchanged: the baseline.

    g
    """
    return torch.ones_like(n), torch.zeros_like(n, dtype=torch.bool)


@strategy(
    per="model",
    search=(1e-2, 1e2),
    loose=math.inf,
    bounds=True,
    threshold_is_norm=True,
    elsewhere={
        "torch": "torch.nn.utils.clip_grad_norm_({parameters}, {threshold}, norm_type={p})",
        "lightning": 'gradient_clip_val={threshold}, gradient_clip_algorithm="norm"',
        "transformers": "max_grad_norm={threshold}",
        "optax": "optax.clip_by_global_norm({threshold})",
    },
)
def norm(n: Tensor, threshold: Tensor, p: P = 2.0) -> Scaling:
    """Scale the gradient so that its p-norm is at most `threshold`.

    g * min(1, c / (n + 1e-6))      Pascanu et al. 2013, arXiv:1211.5063; torch.nn.utils.clip_grad_norm_
    """
    return (threshold / (n + 1e-6)).clamp(max=1), n > threshold


@strategy(
    per="tensor",
    search=(1e-2, 1e1),
    loose=math.inf,
    elsewhere={"torch": "torch.nn.utils.clip_grad_norm_({parameters}, {threshold}, norm_type={p})"},
)
def tensor_norm(n: Tensor, threshold: Tensor, p: P = 2.0) -> Scaling:
    """Scale each tensor so that its own p-norm is at most `threshold`: `norm` per tensor.

    g_t * min(1, c / (n_t + 1e-6))  Keras clipnorm; DINO, arXiv:2104.14294
    """
    return (threshold / (n + 1e-6)).clamp(max=1), n > threshold


@strategy(
    per="unit",
    search=(1e-3, 1e0),
    loose=math.inf,
    quiet=("p",),
    elsewhere={"optax": "optax.adaptive_grad_clip({threshold}, eps={eps})"},
)
def agc(n: Tensor, w: Tensor, threshold: Tensor, eps: Eps = 1e-3, p: P = 2.0) -> Scaling:
    """Adaptive gradient clipping: bound the gradient norm of each unit by a fraction of the norm of its weights.

    g_u * c max(w_u, eps) / n_u where n_u > c max(w_u, eps)      Brock et al. 2021, arXiv:2102.06171; timm

    A unit is a row of a matrix, a filter, or a whole bias. The authors do not clip the last layer:
    `exclude: [head]`. `p` is that of both norms. Ports that sum over the first axis of a matrix of torch
    (vballoli/nfnets-pytorch) clip its columns: `per: column`.
    """
    limit = threshold * w.clamp(min=eps)
    return torch.where(n <= limit, 1.0, limit / n.clamp(min=1e-6)), n > limit


@strategy(
    per="model",
    search=(1e-3, 1e1),
    bounds=True,
    threshold_is_norm=True,
    elsewhere={"optax": "optax.normalize_by_update_norm({threshold})"},
)
def normalize(n: Tensor, threshold: Tensor | float = 1.0) -> Scaling:
    """Always scale the gradient to the norm `threshold`, small gradients up and large ones down.

    c g / (n + 1e-6)                Hazan et al. 2015, arXiv:1507.02030; optax.normalize_by_update_norm
    """
    return threshold / (n + 1e-6), torch.ones_like(n, dtype=torch.bool)


@strategy(per="tensor", search=(1e-4, 1e0), loose=math.inf, elsewhere={"optax": "optax.clip_by_block_rms({threshold})"})
def rms(n: Tensor, size: Tensor, threshold: Tensor) -> Scaling:
    """Scale each tensor so that the root mean square of its elements is at most `threshold`.

    g_t / max(1, rms(g_t) / c)      Adafactor, arXiv:1804.04235; optax.clip_by_block_rms
    """
    root_mean_square = n / size.sqrt()
    fired = root_mean_square > threshold
    return torch.where(root_mean_square <= threshold, 1.0, threshold / root_mean_square), fired


@strategy(per="model", search=(1e-2, 1e2), bounds=True, threshold_is_norm=True)
def soft_norm(n: Tensor, threshold: Tensor) -> Scaling:
    """Scale the gradient smoothly to a norm below `threshold`: by half where its norm equals the threshold.

    g * c / (c + n)                 a smooth form of `norm`, within a factor of 2; Zhang et al. 2020, arXiv:1905.11881
    """
    coefficient = 1 / (1 + torch.where(n > 0, n / threshold, n))
    return coefficient, coefficient < 1
