"""Membership inference: how well a threshold on the loss separates training examples from test examples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from clipbench.core import generators
from clipbench.engine.model.network import Network

# So many examples of a part are enough, and limit the cost.
MOST_EXAMPLES = 1000
MEMBERS, OTHERS = "train", "test"

Losses = Mapping[str, np.ndarray]  # [lanes, examples] of a part, where losses of single examples are known


def advantages(losses: Losses, lanes: int) -> np.ndarray:
    """Return the advantage of each lane; NaN where the losses of single examples are not known."""
    if MEMBERS not in losses or OTHERS not in losses:
        return np.full(lanes, np.nan)
    return np.array([advantage(*lane) for lane in zip(losses[MEMBERS], losses[OTHERS], strict=True)])


def advantage(members: np.ndarray, others: np.ndarray) -> float:
    """Share of members minus share of others whose loss is at most a bound, for the best bound.

    0 is a random guess, 1 is certainty.       Yeom et al. 2018, arXiv:1709.01604, over all bounds
    """
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        return float("nan")
    bounds = np.concatenate([members, others])
    caught, mistaken = (np.searchsorted(np.sort(part), bounds, side="right") / len(part) for part in (members, others))
    return max(0.0, float((caught - mistaken).max()))


@torch.no_grad()
def example_losses(network: Network, outputs: Tensor, targets: Tensor) -> np.ndarray | None:
    """Return [lanes, examples] losses, from outputs in eval mode; None where the loss needs a whole batch."""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return network.measures(output.unsqueeze(0), target.unsqueeze(0))[0]

    generators.seed_all(0)  # a user's loss may draw: the same numbers for every example and lane
    try:
        losses = vmap(vmap(loss), in_dims=(0, None))(outputs[:, :MOST_EXAMPLES], targets[:MOST_EXAMPLES])
    except (RuntimeError, TypeError, ValueError, IndexError):  # a user's loss may raise anything
        return None
    each: np.ndarray = losses.cpu().double().numpy()
    return each
