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
    """Return the information about gradients that were measured, and what a rule made of them; None without a rule."""
    norm = measured.norm.view(1)
    if clipped is None:
        post, fired, fraction, cosine = norm, torch.zeros_like(norm), torch.zeros_like(norm), torch.ones_like(norm)
        keep = torch.ones_like(fired, dtype=torch.bool)
    else:
        post, fired, fraction, cosine = clipped.post, clipped.fired, clipped.fraction, clipped.cosine
        keep = torch.ones_like(fired, dtype=torch.bool) if clipped.keep is None else clipped.keep
    statistics = torch.cat([norm, post, measured.maximum.view(1), fired, fraction, cosine]) if measure else None
    return ClipInfo(norm.view(()), (fired > 0).view(()), keep.view(()), statistics)


def nothing_to_clip(device: torch.device, measure: bool) -> ClipInfo:
    """Return the information about a step without any gradient."""
    zero = torch.zeros((), device=device)
    return ClipInfo(zero, zero > 0, zero == 0, zero.new_tensor([0, 0, 0, 0, 0, 1]) if measure else None)
