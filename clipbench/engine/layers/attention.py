"""Attention as products and a softmax, for masks that leave each query at least one key.

PyTorch's unfused attention checks for fully masked queries, which takes longer than the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clipbench.engine.layers.autocast import rounded


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    if enable_gqa or attn_mask is not None:
        return None
    scores = query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale) @ key.mT
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    weights = scores.softmax(-1)
    return (torch.dropout(weights, dropout_p, True) if dropout_p else weights) @ value


REPLACEMENTS: dict[Any, Callable[..., Any]] = {functional.scaled_dot_product_attention: rounded(_attention)}
