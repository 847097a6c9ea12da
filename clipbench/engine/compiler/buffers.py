"""Owns the workspace of a plan: memory that is handed out and taken back, and what lies where in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Buffers:
    """Memory that is used again as soon as nobody reads it any more."""

    device: torch.device
    free: list[Tensor] = field(default_factory=list)
    total_bytes: int = 0

    def take(self, size: int) -> Tensor:
        """At least `size` bytes, the tightest fit that does not waste more than it holds."""
        fitting = [b for b in self.free if size <= b.numel() <= max(2 * size, size + 4096)]
        if not fitting:
            self.total_bytes += size
            return torch.empty(max(size, 1), dtype=torch.uint8, device=self.device)
        best = min(fitting, key=torch.Tensor.numel)
        self.free = [b for b in self.free if b is not best]
        return best

    def give(self, memory: Sequence[Tensor]) -> None:
        self.free.extend(memory)


def same_layout(one: Tensor, other: Tensor) -> bool:
    """Same type and shape, and the same place for every element."""
    if one.shape != other.shape or one.dtype != other.dtype or one.device.type != other.device.type:
        return False
    return all(a == b for size, a, b in zip(one.shape, one.stride(), other.stride(), strict=True) if size > 1)


def extent(layout: Tensor) -> int:
    """How many elements of memory a layout spans."""
    if layout.numel() == 0:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(layout.shape, layout.stride(), strict=True))


def overlap(one: Tensor, other: Tensor) -> bool:
    start, stop = one.data_ptr(), one.data_ptr() + extent(one) * one.element_size()
    first, end = other.data_ptr(), other.data_ptr() + extent(other) * other.element_size()
    return start < end and first < stop
