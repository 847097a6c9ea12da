"""Norms of gradients of every size: where squares leave the range of the type, elements are scaled before the sum."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor


def odd_lanes(maxima: Tensor) -> Tensor | None:
    """Lanes of maxima [tensors, lanes] whose squares may leave the range of their type; None if, as nearly always, no
    lane's do.

    On a GPU nobody looks, since that would wait for it: there a norm over 1.8e19 is infinite in float32.
    """
    if not _look_odd(maxima):
        return None
    low, high = _safe(maxima.dtype)
    sizes = maxima.numpy()  # five small operations cost a third of what they cost in torch
    odd = (((sizes > 0) & (sizes < low)) | ((high < sizes) & (sizes < math.inf))).any(0)
    return torch.from_numpy(odd) if np.any(odd) else None


def norms(tensor: Tensor, p: float, odd: Tensor | None, dim: int = 1, out: Tensor | None = None) -> Tensor:
    """p-norms along a dimension of a tensor whose first one is the lanes; `odd` lanes are scaled first."""
    if p not in (1.0, 2.0, math.inf):
        odd = torch.ones(len(tensor), dtype=torch.bool, device=tensor.device)
    norm: Tensor = torch.linalg.vector_norm(tensor, p, dim=dim, out=out)
    if odd is not None:
        norm[odd] = _scaled(tensor[odd], p, dim)
    return norm


def norms_after(tensor: Tensor, out: Tensor) -> Tensor | None:
    """2-norms of what a rule made of the gradient, [lanes, elements]: it may be of any size. Returns odd lanes."""
    torch.linalg.vector_norm(tensor, dim=1, out=out)
    if not _look_odd(out):
        return None
    low, high = _safe(out.dtype)
    odd = (out < low) | (out > high)
    out[odd] = _scaled(tensor[odd], 2.0, 1)
    return odd


def either(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Lanes that are odd for one reason or another."""
    if one is None or other is None:
        return one if other is None else other
    return one | other


def along(new: Tensor, old: Tensor, norm: Tensor, odd: Tensor | None, out: Tensor, scratch: Tensor) -> None:
    """How far `new` goes in the direction of `old`, whose norm is given: [lanes]."""
    torch.sum(torch.mul(new, old, out=scratch), dim=1, out=out)
    out.div_(norm)
    if odd is not None:
        out[odd] = (new[odd] * (old[odd] / norm[odd].unsqueeze(1))).sum(1)


def _scaled(tensor: Tensor, p: float, dim: int) -> Tensor:
    largest = tensor.abs().amax(dim, keepdim=True)
    unit = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    norm: Tensor = torch.linalg.vector_norm(tensor / unit, p, dim=dim)
    return norm * unit.squeeze(dim)


def _look_odd(sizes: Tensor) -> bool:
    if sizes.device.type != "cpu":
        return False
    low, high = _safe(sizes.dtype)
    smallest, largest = torch.aminmax(sizes)
    return not (low <= smallest.item() and largest.item() <= high)


@cache
def _safe(dtype: torch.dtype) -> tuple[float, float]:
    """Largest elements between which sums of squares are exact, whatever else there is: 2e-13 to 3e15 in float32."""
    numbers = torch.finfo(dtype)
    return numbers.tiny ** (1 / 3), numbers.max**0.4
