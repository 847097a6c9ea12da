"""A threshold that follows a quantile of the norms of the examples' gradients: Andrew et al. 2021, arXiv:1905.03871."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbench.core.trial import Component
from clipbench.plugins import registry


@dataclass(frozen=True)
class AdaptiveThreshold:
    """After each step, C becomes C exp(-lr (b - quantile)), with b the share of examples that were not clipped."""

    quantile: float
    lr: float
    noise: float  # the standard deviation of what is added to the number of these examples
    min: float
    max: float

    @classmethod
    def of(cls, clip: Component) -> AdaptiveThreshold | None:
        """Return None for an arm whose threshold does not follow its gradients."""
        adapt = clip.as_dict().get("adapt")
        if not isinstance(adapt, Component) or "adapt" in registry.of("strategy", clip).options:
            return None
        return cls(**adapt.as_dict())  # type: ignore[arg-type]

    def moved(self, factor: Tensor, threshold: Tensor, unclipped: Tensor, examples: Tensor, drawn: Tensor) -> Tensor:
        """Return what the threshold is multiplied by at the next step; `drawn` is a standard normal number."""
        counted = unclipped + self.noise * drawn if self.noise else unclipped
        new = factor * torch.exp(-self.lr * (counted / examples - self.quantile))
        if self.min == 0 and math.isinf(self.max):
            return new
        bounded = (threshold * new).clamp(self.min, self.max) / threshold
        return torch.where(threshold > 0, bounded, new)


def gradient_noise_multiplier(clip: Component) -> float:
    """Return the noise of the sum of gradients, as a multiple of the threshold.

    Where the number of unclipped examples is noisy too, that of the gradient is larger, so that both together are as
    private as the arm's `noise` alone: (z^-2 - (2 s)^-2)^(-1/2), theorem 1 of the paper.
    """
    noise = float(clip.as_dict().get("noise") or 0.0)  # type: ignore[arg-type]
    adapt = AdaptiveThreshold.of(clip)
    if not noise or adapt is None:
        return noise
    return float((noise**-2 - (2 * adapt.noise) ** -2) ** -0.5)
