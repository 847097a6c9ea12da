"""The order of a chunk's lanes, and which of them a rule treats alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clipbench.core.trial import Component, Trial
from clipbench.engine.clipping.rule import place_of
from clipbench.plugins import registry

GroupingKey = tuple[str, ...]

# A chunk of one lane would use other kernels of PyTorch than a chunk of many, and so differ in the last bits.
FEWEST_LANES = 2

OFF: GroupingKey = ("off",)


def sort_key(trial: Trial) -> tuple[bool, GroupingKey, float]:
    """Return the key that sorts the lanes of a chunk: those without a rule come first."""
    key = grouping_key(trial.clip)
    return key != OFF, key, trial.threshold or 0.0


def grouping_key(clip: Component) -> GroupingKey:
    """Return what lanes must share to be clipped by one program: everything except the threshold."""
    options = clip.as_dict()
    if not registry.of("strategy", clip).clips or options.get("threshold", math.inf) is None:
        return OFF
    return place_of(clip), clip.name, clip.source, repr(clip.without("threshold").options)


def clips_updates(clip: Component) -> bool:
    """Whether a rule clips the optimizer's update instead of the gradient."""
    return clip.as_dict().get("after") == "momentum"


def order(trials: Sequence[Trial]) -> list[Trial]:
    """Sort trials so that lanes of one optimizer are consecutive, and among them lanes of one rule."""

    def key(trial: Trial) -> tuple[object, ...]:
        return repr(trial.optimizer.without("lr")), *sort_key(trial), repr(trial.optimizer), trial.seed

    return sorted(trials, key=key)


def padded(trials: Sequence[Trial], lanes: int) -> list[Trial]:
    """Return the trials in order; the last one is repeated until there are enough lanes."""
    chosen = order(trials)
    return chosen + [chosen[-1]] * (max(lanes, FEWEST_LANES) - len(chosen))
