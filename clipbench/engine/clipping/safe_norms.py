"""Norms of gradients of any size: where squares would overflow or underflow, elements are scaled before the sum."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor


def lanes_to_scale(maxima: Tensor) -> Tensor | None:
    """Return the mask of lanes of maxima [tensors, lanes] whose squares may leave the range of the type.

    None if there are none, as nearly always. Not checked on a GPU, since that would wait for the device: a norm above
    1.8e19 is infinite in float32 there.
    """
    if not _out_of_range(maxima):
        return None
    low, high = _safe(maxima.dtype)
    sizes = maxima.numpy()  # five small operations cost a third of what they cost in torch
    mask = (((sizes > 0) & (sizes < low)) | ((high < sizes) & (sizes < math.inf))).any(0)
    return torch.from_numpy(mask) if np.any(mask) else None


def norms(tensor: Tensor, p: float, to_scale: Tensor | None, dim: int = 1, out: Tensor | None = None) -> Tensor:
    """Return p-norms along a dimension of a tensor [lanes, ...]; the lanes of the mask `to_scale` are scaled first."""
    if p not in (1.0, 2.0, math.inf):
        to_scale = torch.ones(len(tensor), dtype=torch.bool, device=tensor.device)
    norm: Tensor = torch.linalg.vector_norm(tensor, p, dim=dim, out=out)
    if to_scale is not None:
        norm[to_scale] = _scaled(tensor[to_scale], p, dim)
    return norm


def norms_after(tensor: Tensor, out: Tensor) -> Tensor | None:
    """Write the 2-norms of a clipped gradient [lanes, elements] into `out`; return the mask of scaled lanes."""
    torch.linalg.vector_norm(tensor, dim=1, out=out)
    if not _out_of_range(out):
        return None
    low, high = _safe(out.dtype)
    mask = (out < low) | (out > high)
    out[mask] = _scaled(tensor[mask], 2.0, 1)
    return mask


def merged(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return the union of two masks."""
    if one is None or other is None:
        return one if other is None else other
    return one | other


def project(new: Tensor, old: Tensor, norm: Tensor, to_scale: Tensor | None, out: Tensor, scratch: Tensor) -> None:
    """Write the component of `new` in the direction of `old`, whose norm is given, into `out`: [lanes]."""
    torch.sum(torch.mul(new, old, out=scratch), dim=1, out=out)
    out.div_(norm)
    if to_scale is not None:
        out[to_scale] = (new[to_scale] * (old[to_scale] / norm[to_scale].unsqueeze(1))).sum(1)


def _scaled(tensor: Tensor, p: float, dim: int) -> Tensor:
    largest = tensor.abs().amax(dim, keepdim=True)
    unit = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    norm: Tensor = torch.linalg.vector_norm(tensor / unit, p, dim=dim)
    return norm * unit.squeeze(dim)


def _out_of_range(sizes: Tensor) -> bool:
    if sizes.device.type != "cpu":
        return False
    low, high = _safe(sizes.dtype)
    smallest, largest = torch.aminmax(sizes)
    return not (low <= smallest.item() and largest.item() <= high)


@cache
def _safe(dtype: torch.dtype) -> tuple[float, float]:
    """Return the range of largest elements in which sums of squares are exact: 2e-13 to 3e15 in float32."""
    numbers = torch.finfo(dtype)
    return numbers.tiny ** (1 / 3), numbers.max**0.4
