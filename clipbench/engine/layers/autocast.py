"""Layers under `torch.autocast`: PyTorch's kernels round what goes in and what comes out, and nothing in between."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

Layer = Callable[..., Any]


def rounded(layer: Layer) -> Layer:
    """Let a layer that consists of many operators be rounded as the one kernel that it replaces."""

    @wraps(layer)
    def as_one_kernel(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        kind = input.device.type
        if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
            return layer(input, *args, **kwargs)
        half = torch.get_autocast_dtype(kind)
        within = torch.float32 if kind == "cpu" else half  # other devices have fast products of such numbers
        with torch.autocast(kind, enabled=False):
            given = tree_map_only(Tensor, lambda x: _cast(x, half, within), (input, *args))
            named = tree_map_only(Tensor, lambda x: _cast(x, half, within), kwargs)
            result = layer(*given, **named)
            return None if result is None else result.to(half)

    return as_one_kernel


def _cast(tensor: Tensor, half: torch.dtype, within: torch.dtype) -> Tensor:
    return tensor.to(half).to(within) if tensor.is_floating_point() else tensor
