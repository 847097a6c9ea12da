"""What a rule did at one step, as tensors on the device of the gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from clipbench.engine.clipping.clip import Clipped
from clipbench.engine.clipping.measured import Measured


class ClipInfo(NamedTuple):
    """What a rule did at one step; all but `statistics` have no dimension."""

    norm: Tensor  # of all gradients before the rule: the 2-norm
    fired: Tensor  # whether the rule changed something
    keep: Tensor  # False where the rule refuses the step
    statistics: Tensor | None = None  # with `measure=True`: the columns of `clipbench.engine.step.COLUMNS[1:]`


def info_of(measured: Measured, clipped: Clipped | None, measure: bool) -> ClipInfo:
    """Return the information about gradients that were measured, and what a rule made of them."""
    norm = measured.norm[0, 0]
    if clipped is None:  # no rule
        fired, fraction, post, cosine, keep = (norm.new_zeros(()), norm.new_zeros(()), norm, norm.new_ones(()), None)
    else:
        fired, fraction, post, cosine = (t[0] for t in (clipped.fired, clipped.fraction, clipped.post, clipped.cosine))
        keep = clipped.keep
    statistics = torch.stack([norm, post, measured.maximum[0, 0], fired, fraction, cosine]) if measure else None
    kept = torch.ones_like(fired, dtype=torch.bool) if keep is None else keep[0]
    return ClipInfo(norm, fired > 0, kept, statistics)


def nothing_to_clip(device: torch.device, measure: bool) -> ClipInfo:
    """Return the information about a step without any gradient."""
    zero = torch.zeros((), device=device)
    return ClipInfo(zero, zero > 0, zero == 0, zero.new_tensor([0, 0, 0, 0, 0, 1]) if measure else None)
