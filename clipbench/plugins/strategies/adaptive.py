"""Rules whose limit follows the past norms; each says which norms it stores, and when.

None of them stores a norm that is zero or not finite, which would spoil all later steps.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from clipbench.plugins.decorators import strategy

State = dict[str, Tensor]
Scaling = tuple[Tensor, Tensor, State]  # coefficient, fired, state
Size = Annotated[int, Ge(1), Le(100_000)]  # so many numbers are stored for each place
Steps = Annotated[int, Ge(0)]
Memory = Annotated[float, Ge(0), Lt(1)]  # the weight of the past
Norm = Annotated[float, Gt(0)]

WINDOW = {"count": 0.0, "norms": ("window", 0.0)}
SMALLEST = 1e-8  # of a norm that limits later ones: after a zero they could never grow again


@strategy(per="model", search=(1e0, 1e2), loose=100.0, largest=100.0, init=WINDOW)
def autoclip(n: Tensor, threshold: Tensor, state: State, window: Size = 1000) -> Scaling:
    """Scale the gradient to a percentile, `threshold` from 0 to 100, of the norms so far.

    g * min(1, P_c(n_1 ... n_t) / n_t)      AutoClip: Seetharaman et al. 2020, arXiv:2007.14469; pseeth/autoclip

    Stores the last `window` norms before clipping, including the current one.
    """
    state = _stored(state, n)
    limit = _percentile(state, threshold)
    return *_limited(limit, n), state


@strategy(per="model", search=(1e0, 1e1), loose=math.inf, init={"count": 0.0, "mean": 0.0, "variance": 0.0})
def zclip(
    n: Tensor, threshold: Tensor, state: State, alpha: Memory = 0.97, warmup: Steps = 25, max_norm: Norm = math.inf
) -> Scaling:
    """Scale down a gradient whose norm is more than `threshold` standard deviations, z = (n - mu) / s, above the mean.

    g * (mu + c^2 s / z) / n where z > c    ZClip: Kumar et al. 2025, arXiv:2504.02507; bluorion-com/ZClip

    Compares with the previous norms, then stores the current norm after clipping. The first `warmup` norms are not
    clipped and have equal weights. `max_norm` bounds the norm at all steps (1 in the reference).
    """
    mean, deviation = state["mean"], state["variance"].sqrt()
    deviation = torch.maximum(deviation, 1e-3 * mean)  # after equal norms any increase would be a spike
    z = (n - mean) / (deviation + 1e-6)
    spike = (state["count"] >= warmup) & (z > threshold)
    limit = torch.where(spike, mean + threshold * threshold * deviation / z, math.inf).clamp(max=max_norm)
    return *_limited(limit, n), _updated_moments(state, n, torch.minimum(n, limit), alpha, warmup)


@strategy(per="tensor", search=(1.01, 2e0), init={"count": 0.0, "gamma": 0.0})
def adagc(
    n: Tensor,
    model_n: Tensor,
    threshold: Tensor,
    state: State,
    beta: Memory = 0.98,
    warmup: Steps = 100,
    max_norm: Norm = 1.0,
) -> Scaling:
    """Scale each tensor so that its norm is at most `threshold` times the moving mean of its own norms.

    g_t * min(1, c gamma_t / n_t)   AdaGC: Wang et al. 2025, arXiv:2502.11034; Paddle ClipGradByAdaptiveNorm

    Compares with the previous norms, then stores the current norm after clipping. In the first `warmup` steps the whole
    gradient is scaled to at most `max_norm`, and gamma is the smallest norm after that.
    """
    starting = state["count"] < warmup
    limit = torch.where(starting, n * (max_norm / model_n).clamp(max=1), threshold * state["gamma"].clamp(min=SMALLEST))
    limit = torch.where(starting & (model_n <= max_norm), math.inf, limit)
    clipped, gamma = torch.minimum(n, limit), state["gamma"]
    least = torch.where(state["count"] == 0, clipped, torch.minimum(gamma, clipped))
    changed = {"gamma": torch.where(starting, least, beta * gamma + (1 - beta) * clipped)}
    return *_limited(limit, n), _counted(state, n, changed)


@strategy(per="tensor", search=(1.001, 2e0), loose=math.inf, init={"count": 0.0, "last": 0.0})
def norm_growth(n: Tensor, threshold: Tensor, state: State) -> Scaling:
    """Limit the growth of each tensor's norm to the factor `threshold` from one step to the next.

    g_t * min(1, c (n_before + 1e-8) / n_t)     Fira's limiter (c = 1.01): Chen et al. 2024, arXiv:2410.01623

    Stores the norm after clipping; the first norm is not clipped.
    """
    limit = torch.where(state["count"] == 0, math.inf, threshold * (state["last"] + SMALLEST))
    return *_limited(limit, n), _counted(state, n, {"last": torch.minimum(n, limit)})


@strategy(per="model", search=(1e0, 1e1), loose=math.inf, init=WINDOW)
def mean_plus_k_std(n: Tensor, threshold: Tensor, state: State, window: Size = 128, warmup: Steps = 64) -> Scaling:
    """Scale the gradient so that its norm is at most the mean of the last norms plus `threshold` standard deviations.

    g * min(1, (mean + c std) / n)  levanter clip_update_norm (c = 3)

    Compares with the previous norms, then stores the current norm before clipping. Nothing is clipped before there are
    `warmup` norms.
    """
    return *_limited(_mean_plus_deviations(state, threshold, warmup), n), _stored(state, n)


@strategy(per="tensor", search=(1.01, 1e1), loose=math.inf, init={"count": 0.0, "mean": 0.0})
def ema_norm(n: Tensor, threshold: Tensor, state: State, beta: Memory = 0.99) -> Scaling:
    """Scale each tensor so that its norm is at most `threshold` times the moving mean of its norms.

    g_t * min(1, c EMA(n_t) / n_t)  OLMo's adaptive clipping: allenai/OLMo, olmo/optim.py

    Compares with the previous norms, then stores the current norm after clipping. The first norm is not clipped, and
    is the initial mean.
    """
    first, mean = state["count"] == 0, state["mean"]
    limit = torch.where(first, math.inf, threshold * mean.clamp(min=SMALLEST))
    clipped = torch.minimum(n, limit)
    return *_limited(limit, n), _counted(state, n, {"mean": torch.where(first, n, beta * mean + (1 - beta) * clipped)})


@strategy(per="step", search=(1e0, 2e1), loose=math.inf, refuses=True, init=WINDOW | {"refused": 0.0})
def skip_sigma(
    n: Tensor, threshold: Tensor, state: State, window: Size = 128, warmup: Steps = 64, patience: Steps = 100
) -> tuple[Tensor, State]:
    """Skip the step if the norm is above the mean of the last norms plus `threshold` standard deviations.

    step if n <= mean + c std       OLMo-core SkipStepOptimizer (c = 6), levanter skipstep

    Compares with the previous norms, then stores the current one, even of a skipped step. No step with a finite norm is
    skipped before there are `warmup` norms, nor after `patience` skipped steps in a row.
    """
    usual = (n <= _mean_plus_deviations(state, threshold, warmup)) | (state["refused"] >= patience)
    keep = usual & n.isfinite()
    refused = torch.where(keep, 0.0, (state["refused"] + 1).clamp(max=patience))
    return keep, _stored(state, n) | {"refused": refused}


def _limited(limit: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """Return coefficient and fired: exactly 1 where the norm is within the limit; NaN stays NaN."""
    return torch.where(n <= limit, 1.0, limit / n), n > limit


def _can_be_stored(n: Tensor) -> Tensor:
    return n.isfinite() & (n > 0)


def _counted(state: State, n: Tensor, changed: State) -> State:
    """Return the state with its changes and the count, where the norm can be stored."""
    changed = {"count": state["count"] + 1} | changed
    worth = _can_be_stored(n)
    for new in changed.values():  # also for a finite norm: a NaN in another tensor makes the norm of the model NaN
        worth = worth & new.isfinite()
    return {name: torch.where(worth, new, state[name]) for name, new in changed.items()}


def _updated_moments(state: State, n: Tensor, clipped: Tensor, alpha: float, warmup: int) -> State:
    """Return mean and variance: of all norms with equal weights during the warmup, moving averages after that."""
    count = state["count"] + 1
    weight = torch.where(count <= warmup, 1 / count, 1 - alpha)
    mean = state["mean"] + weight * (clipped - state["mean"])
    # In the warmup, the product of the distances to the old and the new mean gives the exact variance.
    before = torch.where(count <= warmup, clipped - state["mean"], clipped - mean)
    variance = (1 - weight) * state["variance"] + weight * before * (clipped - mean)
    return _counted(state, n, {"mean": mean, "variance": variance.clamp(max=torch.finfo(n.dtype).max)})


def _stored(state: State, n: Tensor) -> State:
    """Replace the oldest norm by the current one."""
    norms, count = state["norms"], state["count"]
    size = norms.shape[-1]
    here = torch.arange(size, device=n.device) == torch.remainder(count, size).unsqueeze(-1)
    worth = _can_be_stored(n)
    norms = torch.where(here & worth.unsqueeze(-1), n.unsqueeze(-1), norms)
    return {"count": torch.where(worth, count + 1, count), "norms": norms}


def _in_use(state: State) -> tuple[Tensor, Tensor]:
    """Return the number of stored norms, [lanes, places, 1], and the mask of entries in use."""
    size = state["norms"].shape[-1]
    filled = state["count"].clamp(max=size).unsqueeze(-1)
    return filled, torch.arange(size, device=filled.device) < filled


def _percentile(state: State, percent: Tensor) -> Tensor:
    """Return the percentile with linear interpolation, as numpy; infinite without norms."""
    filled, there = _in_use(state)
    ordered = torch.where(there, state["norms"], math.inf).sort(-1).values
    last = (filled - 1).clamp(min=0)
    rank = percent.clamp(max=100).unsqueeze(-1) / 100 * last
    low = rank.floor()
    below = ordered.gather(-1, low.long())
    above = ordered.gather(-1, torch.minimum(low + 1, last).long())
    return torch.where(filled > 0, below + (rank - low) * (above - below), math.inf).squeeze(-1)


def _mean_plus_deviations(state: State, k: Tensor, warmup: int) -> Tensor:
    """Return mean plus k standard deviations of the norms; infinite while there are too few."""
    filled, there = _in_use(state)
    norms = state["norms"]
    mean = torch.where(there, norms, 0.0).sum(-1, keepdim=True) / filled
    deviation = (torch.where(there, norms - mean, 0.0).square().sum(-1, keepdim=True) / filled).sqrt()
    # After equal norms any increase would be a spike.
    limit = (mean + k.unsqueeze(-1) * deviation.clamp(min=1e-6)).squeeze(-1)
    return torch.where(state["count"] >= max(warmup, 1), limit, math.inf)
