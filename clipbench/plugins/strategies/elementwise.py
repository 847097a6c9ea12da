"""Rules that change each element separately."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from clipbench.plugins.decorators import strategy

NotPositive = Annotated[float, Le(0)]
NotNegative = Annotated[float, Ge(0)]


@strategy(
    per="element",
    search=(1e-4, 1e0),
    loose=math.inf,
    instead=("lower", "upper"),
    clamps=True,
    elsewhere={
        "torch": "torch.nn.utils.clip_grad_value_({parameters}, {threshold})",
        "lightning": 'gradient_clip_val={threshold}, gradient_clip_algorithm="value"',
        "optax": "optax.clip({threshold})",
    },
)
def value(g: Tensor, threshold: Tensor, lower: NotPositive | None = None, upper: NotNegative | None = None) -> Tensor:
    """Clamp every element to [-threshold, threshold].

    clamp(g, -c, c)                 Mikolov 2012; torch.nn.utils.clip_grad_value_

    `lower` and `upper` each replace one bound; without a threshold, a bound that is not given is infinite
    (Chainer GradientHardClipping, Paddle ClipGradByValue).
    """
    low = -threshold if lower is None else torch.full_like(threshold, lower)
    high = threshold if upper is None else torch.full_like(threshold, upper)
    return torch.maximum(torch.minimum(g, high), low)


@strategy(per="element", search=(1e-3, 1e1), loose=math.inf)
def zero(g: Tensor, threshold: Tensor) -> Tensor:
    """Set every element whose absolute value is above `threshold` to zero, and every NaN.

    g where |g| <= c, else 0        princeton-vl/lietorch GradClip
    """
    return torch.where(g.abs() <= threshold, g, 0.0)


@strategy(per="element", search=(1e-4, 1e0), loose=math.inf, clamps=True)
def one_sided(g: Tensor, threshold: Tensor) -> Tensor:
    """Bound every element from above only.

    min(g, c)                       the upper half of a hard clamp, as in Chainer's GradientHardClipping
    """
    return torch.minimum(g, threshold)


@strategy(per="element", search=(1e-4, 1e-1))
def sign_step(g: Tensor, threshold: Tensor) -> Tensor:
    """Replace elements whose absolute value is above `threshold` by steps of that size; set the others to zero.

    c sign(g) where |g| > c, else 0     a thresholded sign step; compare signSGD, arXiv:1802.04434
    """
    return torch.where(g.abs() > threshold, threshold * g.sign(), 0.0)


@strategy(per="element", search=(1e-2, 1e0), loose=1.0, clamps=True)
def relative(g: Tensor, model_m: Tensor, threshold: Tensor) -> Tensor:
    """Clamp every element to the fraction `threshold` of the largest absolute element of the model.

    clamp(g, -r M, r M), M = max |g|    the limit follows the gradient; r >= 1 does nothing
    """
    return _within(g, threshold * model_m)


@strategy(per="element", search=(1e-4, 1e0))
def tanh(g: Tensor, threshold: Tensor) -> Tensor:
    """Squash every element smoothly into (-threshold, threshold).

    c tanh(g / c)                   a smooth clamp; compare HeavyBall's trust_region_clip_

    It changes every element at every threshold; an infinite element becomes c.
    """
    return torch.where(g == 0, g, threshold * torch.tanh(g / threshold))


@strategy(per="element", elsewhere={"optax": "optax.scale_by_sign()"})
def sign(g: Tensor) -> Tensor:
    """Replace every element by its sign: the learning rate is the size of every step.

    sign(g)                         Bernstein et al. 2018, arXiv:1802.04434; optax.scale_by_sign

    A NaN becomes 0, as in torch.
    """
    return g.sign()


@strategy(per="element")
def centralize(g: Tensor, row_mean: Tensor) -> Tensor:
    """Subtract the mean from every row of a matrix and every filter; biases do not change. Not a clipping rule.

    g_u - mean(g_u)                 Yong et al. 2020, arXiv:2004.01461; optax.centralize
    """
    return g - row_mean


def _within(g: Tensor, limit: Tensor) -> Tensor:
    # Five times faster on a CPU than `clamp` with tensors as bounds, and the same for NaN and infinity.
    return torch.maximum(torch.minimum(g, limit), -limit)
