"""The memory of values: a pool that allocates and reuses it, and comparisons of layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Less memory is never reused: kernels that only use the same scalar would have to stay in order.
SMALL = 64


@dataclass
class MemoryPool:
    """Memory that is reused as soon as its last reader has run."""

    device: torch.device
    free: list[Tensor] = field(default_factory=list)

    def allocate(self, size: int) -> Tensor:
        """Return at least `size` bytes: the smallest free memory that is not much too large, or new memory."""
        fitting = [b for b in self.free if SMALL < size <= b.numel() <= max(2 * size, size + 4096)]
        if not fitting:
            return torch.empty(max(size, 1), dtype=torch.uint8, device=self.device)
        best = min(fitting, key=torch.Tensor.numel)
        self.free = [b for b in self.free if b is not best]
        return best

    def release(self, memory: Sequence[Tensor]) -> None:
        self.free.extend(memory)


def same_layout(one: Tensor, other: Tensor) -> bool:
    """Whether both have the same type, shape and strides; the layout of a node's value is on the meta device."""
    devices = {one.device.type, other.device.type} - {"meta"}
    if one.shape != other.shape or one.dtype != other.dtype or len(devices) > 1:
        return False
    return all(a == b for size, a, b in zip(one.shape, one.stride(), other.stride(), strict=True) if size > 1)


def extent(layout: Tensor) -> int:
    """Return the number of elements that a layout spans in memory."""
    if layout.numel() == 0:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(layout.shape, layout.stride(), strict=True))


def overlap(one: Tensor, other: Tensor) -> bool:
    start, stop = one.data_ptr(), one.data_ptr() + extent(one) * one.element_size()
    first, end = other.data_ptr(), other.data_ptr() + extent(other) * other.element_size()
    return start < end and first < stop
