"""Classes as vectors, without the look at their values by which PyTorch checks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor | None:
    if num_classes < 1:  # it depends on the values
        return None
    return (tensor.unsqueeze(-1) == torch.arange(num_classes, device=tensor.device)).long()


REPLACEMENTS: dict[Any, Callable[..., Any]] = {functional.one_hot: _one_hot}
