"""Differential privacy: the noise of DP-SGD, and what of the examples is given away in spite of it."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from clipbench.core.trial import Component, Trial
from clipbench.engine.model.stacked import Blocks
from clipbench.plugins import registry

SEEDS = 2**32


class PrivateNoise:
    """Gaussian noise on the sum of clipped gradients, whose standard deviation is so many thresholds.

    Each seed has a generator of its own, beside that of its batches; its lanes share the standard normal numbers.
    """

    def __init__(self, trials: Sequence[Trial], grads: Blocks, expected: int) -> None:
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

    def take(self, other: PrivateNoise) -> None:
        """Go on where another has come to, which had these seeds too, and maybe more."""
        self._generators = {seed: other._generators[seed] for seed in self._generators}


def accountant_is_there() -> bool:
    return importlib.util.find_spec("opacus") is not None


def is_bounded(clip: Component) -> bool:
    """Whether the 2-norm of what an arm leaves of an example's gradient is at most its threshold."""
    options, plugin = clip.as_dict(), registry.of("strategy", clip)
    whole = (options.get("per") or plugin.facts["per"]) in ("model", "element") and not options.get("exclude")
    p = options.get("p", 2.0)
    return bool(plugin.facts.get("bounds")) and whole and isinstance(p, float) and p <= 2


def epsilon_of(trial: Trial, rate: float, steps: int, examples: int) -> float | None:
    """What a trial spent in so many steps; None if nobody can say."""
    options = trial.clip.as_dict()
    noise, delta = options.get("noise"), options.get("delta") or 1 / examples
    if not noise or options.get("threshold") is None or not is_bounded(trial.clip) or not accountant_is_there():
        return None
    return epsilon(float(noise), rate, steps, float(delta))  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def epsilon(noise: float, rate: float, steps: int, delta: float) -> float | None:
    """The privacy budget of DP-SGD by Opacus's accountant of Renyi divergences; None where that finds no bound."""
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the best of the orders which it tries is the last one
        try:
            spent = float(accountant.get_epsilon(delta))
        except (ArithmeticError, ValueError):  # noise beyond all numbers
            return None
    return spent if math.isfinite(spent) else None
