"""What a model's losses give away about which examples it was trained on: the loss-threshold attack."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from clipbench.engine.model.functional import Network

# So many examples of a part tell enough, and bound what the question costs.
MOST_EXAMPLES = 1000
MEMBERS, OTHERS = "train", "test"

Losses = Mapping[str, np.ndarray]  # [lanes, examples] of a part, where they can be told


def advantages(losses: Losses, lanes: int) -> np.ndarray:
    """Of each lane; NaN where the losses of single examples are not known."""
    if MEMBERS not in losses or OTHERS not in losses:
        return np.full(lanes, np.nan)
    return np.array([advantage(*lane) for lane in zip(losses[MEMBERS], losses[OTHERS], strict=True)])


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
def example_losses(network: Network, outputs: Tensor, targets: Tensor) -> np.ndarray | None:
    """[lanes, examples] of the first examples, from outputs in eval mode; None where a loss wants its batch whole."""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return network.measures(output.unsqueeze(0), target.unsqueeze(0))[0]

    try:
        losses = vmap(vmap(loss), in_dims=(0, None))(outputs[:, :MOST_EXAMPLES], targets[:MOST_EXAMPLES])
    except (RuntimeError, TypeError, ValueError, IndexError):  # it is the user's own, and may do anything
        return None
    each: np.ndarray = losses.double().cpu().numpy()
    return each
