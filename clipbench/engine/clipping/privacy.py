"""Differential privacy: the noise of DP-SGD, and the privacy budget that a training spends."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from clipbench.core.trial import Component, Trial
from clipbench.engine.model.stacked import StackedTensors
from clipbench.plugins import registry

SEEDS = 2**32


class PrivacyNoise:
    """Gaussian noise on the sum of clipped gradients; its standard deviation is a multiple of the threshold.

    Each seed has its own generator, besides that of its batches; its lanes share the standard normal numbers.
    """

    def __init__(self, trials: Sequence[Trial], grads: StackedTensors, expected: int) -> None:
        self._grads = grads
        noises = [float(trial.clip.as_dict().get("noise") or 0.0) for trial in trials]  # type: ignore[arg-type]
        self._share = grads.storage.new_tensor(noises) / expected
        self._noisy = self._share > 0
        seeds = sorted({trial.seed for trial, noise in zip(trials, noises, strict=True) if noise})
        self._generators = {seed: torch.Generator().manual_seed((SEEDS // 2 + seed) % SEEDS) for seed in seeds}
        rows = [seeds.index(trial.seed) if trial.seed in seeds else 0 for trial in trials]
        self._rows = torch.tensor(rows, device=grads.storage.device)

    def __call__(self, thresholds: Tensor) -> None:
        generators = self._generators.values()
        deviation = torch.where(self._noisy, thresholds * self._share, 0.0).unsqueeze(1)
        for block in self._grads.values():
            shape = block.shape[1:]
            drawn = torch.stack([torch.randn(shape, generator=g, dtype=block.dtype) for g in generators])
            chosen = drawn.to(block.device)[self._rows].view(block.shape[0], -1)
            block.view(block.shape[0], -1).add_(torch.where(deviation > 0, deviation * chosen, 0.0))

    def copy_from(self, other: PrivacyNoise) -> None:
        """Continue with the generators of another, which has all of these seeds."""
        self._generators = {seed: other._generators[seed] for seed in self._generators}


def has_accountant() -> bool:
    return importlib.util.find_spec("opacus") is not None


def is_bounded(clip: Component) -> bool:
    """Whether the 2-norm of an example's clipped gradient is at most the arm's threshold."""
    options, plugin = clip.as_dict(), registry.of("strategy", clip)
    whole = (options.get("per") or plugin.facts["per"]) in ("model", "element") and not options.get("exclude")
    p = options.get("p", 2.0)
    return bool(plugin.facts.get("bounds")) and whole and isinstance(p, float) and p <= 2


def epsilon_of(trial: Trial, rate: float, steps: int, examples: int) -> float | None:
    """Return the epsilon that a trial has spent in so many steps; None if it is not known."""
    options = trial.clip.as_dict()
    noise, delta = options.get("noise"), options.get("delta") or 1 / examples
    if not noise or options.get("threshold") is None or not is_bounded(trial.clip) or not has_accountant():
        return None
    return epsilon(float(noise), rate, steps, float(delta))  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def epsilon(noise: float, rate: float, steps: int, delta: float) -> float | None:
    """Return the epsilon of DP-SGD by Opacus's accountant of Renyi divergences; None where it finds no bound."""
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns if the best order is the last one that it tries
        try:
            spent = float(accountant.get_epsilon(delta))
        except (ArithmeticError, ValueError):  # the noise is out of range
            return None
    return spent if math.isfinite(spent) else None
