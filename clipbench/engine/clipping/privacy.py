"""Differential privacy: the noise of DP-SGD, and the privacy budget that a training spends."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Collection
from functools import lru_cache

from clipbench.core.trial import Component, Trial
from clipbench.engine.clipping.threshold_groups import threshold_groups
from clipbench.plugins import registry


def has_accountant() -> bool:
    return importlib.util.find_spec("opacus") is not None


def is_bounded(clip: Component, names: Collection[str]) -> bool:
    """Whether the 2-norm of an example's clipped gradient is at most the arm's threshold, or that of its groups.

    `names` are those of the trained parameters.
    """
    options, plugin = clip.as_dict(), registry.of("strategy", clip)
    clipped = [name for group in threshold_groups(clip, names) for name in group.names]
    whole = (options.get("per") or plugin.facts["per"]) in ("model", "element") and len(clipped) == len(names)
    p = options.get("p", 2.0)
    return bool(plugin.facts.get("bounds")) and whole and isinstance(p, float) and p <= 2


def epsilon_of(trial: Trial, rate: float, steps: int, examples: int, names: Collection[str]) -> float | None:
    """Return the epsilon that a trial has spent in so many steps; None if it is not known."""
    options = trial.clip.as_dict()
    noise, delta = options.get("noise"), options.get("delta") or 1 / examples
    if not noise or options.get("threshold") is None or not is_bounded(trial.clip, names) or not has_accountant():
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
