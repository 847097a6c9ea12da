"""Copies to a device that the host does not wait for."""

from __future__ import annotations

from torch import Tensor


def upload(target: Tensor, source: Tensor) -> None:
    """Copy a tensor on the CPU, which nothing may change afterwards, into one on any device."""
    if target.is_cuda:
        source = source.to(target.dtype).pin_memory()  # a copy of other memory would wait for the device
    target.copy_(source, non_blocking=target.is_cuda)
