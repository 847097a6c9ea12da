"""Rules that act after the optimizer's step: on the weights, or on the update that it has made."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState
from torch.optim import Optimizer

from clipbench.clipper.clip_info import ClipInfo
from clipbench.clipper.tensor_rows import Tensors
from clipbench.engine.clipping.clip import Clip, Clipped
from clipbench.engine.clipping.measured import Measured
from clipbench.engine.clipping.rule import Memory, Now


def unscale(optimizer: Optimizer, scaler: GradScaler | None) -> None:
    """Divide the gradients by the scale of the loss, unless this was done."""
    if scaler is not None and scaler._per_optimizer_states[id(optimizer)]["stage"] is OptState.READY:
        scaler.unscale_(optimizer)


def take_step(optimizer: Optimizer, scaler: GradScaler | None) -> bool:
    """Step, and return whether the optimizer has: a scaler leaves it out where gradients are not finite."""
    if scaler is None:
        optimizer.step()
        return True
    taken = list[bool]()
    handle = optimizer.register_step_post_hook(lambda *_: taken.append(True))
    try:
        scaler.step(optimizer)
    finally:
        handle.remove()
    return bool(taken)


def learning_rates(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, float]:
    """Return what an update is divided by: the learning rate of each parameter, or 1 where it is 0 or unknown."""
    rates = {id(p): float(group.get("lr", 1.0)) for group in optimizer.param_groups for p in group["params"]}
    return {name: rates.get(id(p), 1.0) or 1.0 for name, p in parameters.items()}


def clipped_update(
    clip: Clip, old: Tensors, new: Tensors, rates: Mapping[str, float], now: Now, memory: Memory
) -> tuple[dict[str, Tensor], Clipped]:
    """Clip the update u = (w_old - w_new) / lr; where a rule leaves it as it is, the weights stay as they are."""
    updates = {name: (old[name] - w) / rates[name] for name, w in new.items()}
    clipped = clip(Measured(updates, exact=True), Measured(old, exact=True), now, memory)
    return {
        name: torch.where(u == updates[name], new[name], old[name] - rates[name] * u)
        for name, u in clipped.tensors.items()
    }, clipped


def info_of_weights(gradient: ClipInfo, fraction: Tensor) -> ClipInfo:
    """Return the information about a rule that has changed this fraction of the weights."""
    fired, statistics = fraction > 0, gradient.statistics
    if statistics is not None:
        statistics = torch.stack([*statistics[:3], fired.to(fraction.dtype), fraction, statistics[5]])
    return gradient._replace(fired=fired, statistics=statistics)


def info_of_update(gradient: ClipInfo, clipped: Clipped) -> ClipInfo:
    """Return the information about a rule that has clipped the update."""
    statistics = gradient.statistics
    if statistics is not None:
        post, fired, fraction, cosine = clipped.post[0], clipped.fired[0], clipped.fraction[0], clipped.cosine[0]
        statistics = torch.stack([statistics[0], post, statistics[2], fired, fraction, cosine])
    return gradient._replace(fired=clipped.fired[0] > 0, statistics=statistics)
