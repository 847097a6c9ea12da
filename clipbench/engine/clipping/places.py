"""The places where a rule looks: the whole model, each tensor, unit or column; their norms, and how they are scaled.

Tensors are [rows, *shape]. A row is the gradient of one part of the batch; usually there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


def at_places(tensors: Tensors, per: str) -> dict[str, Tensor]:
    """Return [rows, places, elements] of each tensor: its units or columns, or the whole of it.

    A unit is a row of a matrix, a filter, or a whole tensor otherwise; a column is what one input of a layer is
    multiplied by: a column of a matrix, the part of all filters for a channel, or a whole tensor otherwise.
    """
    if per == "column":
        tensors = {name: t.transpose(1, 2) if t.dim() > 2 else t for name, t in tensors.items()}
    counts = {name: t.shape[1] if per in ("unit", "column") and t.dim() > 2 else 1 for name, t in tensors.items()}
    return {name: t.reshape(t.shape[0], counts[name], -1) for name, t in tensors.items()}


def _as_before(part: Tensor, like: Tensor, per: str) -> Tensor:
    """The inverse of `at_places`, for one tensor."""
    if per != "column" or like.dim() < 3:
        return part.view(like.shape)
    return part.view(like.transpose(1, 2).shape).transpose(1, 2)


def norms(tensors: Tensors, per: str, p: float, exact: bool) -> Tensor:
    """Return the p-norms of all places: [rows, places]."""
    if per == "model":
        # The norm of the tensors' norms: one sum over all elements would lose digits in float32.
        return norm(norms(tensors, "tensor", p, exact), p, exact, keepdim=True)
    return torch.cat([norm(part, p, exact) for part in at_places(tensors, per).values()], dim=1)


def norm(x: Tensor, p: float, exact: bool, keepdim: bool = False) -> Tensor:
    """Return p-norms along the last dimension.

    Kernels that are `exact` sum in double. Others scale first, where powers would overflow or underflow.
    """
    if exact or math.isinf(p):
        plain: Tensor = torch.linalg.vector_norm(x, p, dim=-1, keepdim=keepdim)
        return plain
    largest = x.abs().amax(-1, keepdim=True)
    unit = torch.where((largest > 0) & (largest < math.inf), largest, 1.0)
    scaled: Tensor = torch.linalg.vector_norm(x / unit, p, dim=-1, keepdim=True) * unit
    return scaled if keepdim else scaled.squeeze(-1)


def sizes(tensors: Tensors, per: str) -> Tensor:
    """Return the number of elements of each place, [places], as real numbers."""
    first = next(iter(tensors.values()))
    counts = [part.shape[2] for part in at_places(tensors, per).values() for _ in range(part.shape[1])]
    return first.new_tensor([sum(counts)] if per == "model" else counts)


def scaled(tensors: Tensors, coefficients: Tensor, per: str) -> dict[str, Tensor]:
    """Multiply every place by its coefficient, [rows, places]."""
    if per == "model":
        return {name: t * coefficients.view(-1, *[1] * (t.dim() - 1)) for name, t in tensors.items()}
    parts = at_places(tensors, per)
    columns = torch.split(coefficients, [part.shape[1] for part in parts.values()], dim=1)
    return {
        name: _as_before(part * column.unsqueeze(-1), tensors[name], per)
        for (name, part), column in zip(parts.items(), columns, strict=True)
    }


def joined(tensors: Tensors) -> Tensor:
    """Return all elements in one matrix: [rows, elements]."""
    return torch.cat([t.reshape(t.shape[0], -1) for t in tensors.values()], dim=1)


def separated(elements: Tensor, like: Tensors) -> dict[str, Tensor]:
    """The inverse of `joined`."""
    widths = [t[0].numel() for t in like.values()]
    return {
        name: part.reshape(t.shape)
        for (name, t), part in zip(like.items(), torch.split(elements, widths, dim=1), strict=True)
    }


def row_means(tensors: Tensors) -> Tensor:
    """Return for each element the mean of its row or filter: [rows, elements]; 0 where a tensor has no rows."""
    means = [
        part.mean(2, keepdim=True).expand_as(part) if tensors[name].dim() > 2 else torch.zeros_like(part)
        for name, part in at_places(tensors, "unit").items()
    ]
    return torch.cat([mean.flatten(1) for mean in means], dim=1)


def chosen(tensors: Tensors, names: Sequence[str]) -> dict[str, Tensor]:
    return {name: tensors[name] for name in names}
