"""What a model's losses give away about which examples it was trained on: the loss-threshold attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

if TYPE_CHECKING:
    from clipbench.engine.workspace import Workspace

# So many examples of a part tell enough, and bound what the question costs.
MOST_EXAMPLES = 1000


def advantages(work: Workspace) -> np.ndarray:
    """Of each lane; NaN where the losses of single examples cannot be told."""
    members, others = (_losses(work, part) for part in ("train", "test"))
    if members is None or others is None:
        return np.full(work.lanes, np.nan)
    return np.array([advantage(*lane) for lane in zip(members, others, strict=True)])


def advantage(members: np.ndarray, others: np.ndarray) -> float:
    """Share of members minus share of others whose loss is at most a bound, for the bound that tells them apart best.

    0 is a coin's guess, 1 is certainty.       Yeom et al. 2018, arXiv:1709.01604, over all bounds
    """
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        return float("nan")
    bounds = np.concatenate([members, others])
    caught, mistaken = (np.searchsorted(np.sort(part), bounds, side="right") / len(part) for part in (members, others))
    return max(0.0, float((caught - mistaken).max()))


@torch.no_grad()
def _losses(work: Workspace, name: str) -> np.ndarray | None:
    """[lanes, examples] in eval mode, of the first examples of a part."""
    part = work.parts[name]
    if part is None or not work.network.has_data:
        return None
    x, y = (tensor[:MOST_EXAMPLES] for tensor in part)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return work.network.measures(output.unsqueeze(0), target.unsqueeze(0))[0]

    try:
        losses = vmap(vmap(loss), in_dims=(0, None))(work.evaluate.outputs(x), y)
    except (RuntimeError, TypeError, ValueError, IndexError):  # a user's loss may need its batch whole
        return None
    each: np.ndarray = losses.double().cpu().numpy()
    return each
