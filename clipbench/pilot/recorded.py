"""What a pilot sees of trials that nothing clips, and the thresholds that it proposes: plain numbers, without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipbench.core.trial import Component, Trial

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Watched:
    """One trial at its kept steps; they end before the step at which it diverged."""

    trial: Trial
    steps: int  # that were trained, and are finite
    every: int  # one step in so many is kept, the first one included
    diverged_step: int | None
    places: dict[str, Arrays]  # of model, tensor, unit: n, m, w, v [kept steps, places]; v is w after the step
    sizes: Arrays  # of their places
    elements: Arrays  # g, row_mean, old, new [kept steps, chosen elements]
    parameters: int
    names: tuple[str, ...]  # of the tensors


@dataclass(frozen=True)
class Level:
    """One threshold, and what it would do: the share of steps, or elements, or the part of the norm that is left."""

    threshold: float
    share: float


@dataclass(frozen=True)
class Proposal:
    """Thresholds for one rule. `by` says what their shares are: fires, keeps, or search, where there are none."""

    rule: Component
    by: str
    levels: tuple[Level, ...] = ()
    unit: str = ""  # of `fires`: steps, elements, ...
