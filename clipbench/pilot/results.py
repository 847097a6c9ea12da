"""The results of a pilot as plain numbers, without torch: gradient statistics of trials, and proposed thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipbench.core.trial import Component, Trial

# The most steps of a trial that a rule with a state gets; of a longer one, stretches that have so many together.
REPLAYED = 2**17

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class RecordedSteps:
    """What rules look at, at the recorded steps of one training."""

    places: dict[str, Arrays]  # of model, tensor, unit: n, m, w, v [recorded steps, places]; v is w after the step
    sizes: Arrays  # of their places
    elements: Arrays  # g, row_mean, old, new [recorded steps, sampled elements]


@dataclass(frozen=True)
class GradientStatistics(RecordedSteps):
    """The statistics of one trial without clipping; its recorded steps end before a divergence."""

    trial: Trial
    steps: int  # that were trained before a divergence
    every: int  # every so many steps one is recorded, the first one included
    diverged_step: int | None
    parameters: int
    names: tuple[str, ...]  # of the tensors


@dataclass(frozen=True)
class SuggestedThreshold:
    """A threshold and its effect: the share of steps or elements that it clips, or the part of the norm it leaves."""

    threshold: float
    share: float
    left: float | None = None  # the part of the norm that it leaves, at the median of the steps that it clips


@dataclass(frozen=True)
class Proposal:
    """Thresholds for one rule. `by` says what their shares are: fires, keeps, or search, where there are none.

    It is `given` for thresholds that were given, whose shares are those of `fires`.
    """

    rule: Component
    by: str
    levels: tuple[SuggestedThreshold, ...] = ()
    unit: str = ""  # of `fires`: steps, elements, ...
