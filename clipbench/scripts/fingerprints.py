"""Hashes of what a script starts with: its initial weights and its first batches, by which pairing is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LENGTH = 12


def of_weights(module: nn.Module) -> str:
    """Return a hash of all weights and buffers of a model."""
    found = hashlib.sha256()
    with torch.no_grad():
        for name, tensor in sorted(module.state_dict(keep_vars=True).items()):
            if isinstance(tensor, Tensor):
                found.update(name.encode())
                found.update(_bytes(tensor))
    return found.hexdigest()[:LENGTH]


def of_batch(batch: Any) -> str:
    """Return a hash of a batch: of all tensors, arrays and plain values in it, however they are nested."""
    found = hashlib.sha256()
    _add(found, batch)
    return found.hexdigest()[:LENGTH]


def joined(hashes: list[str]) -> str:
    """Return one hash of several."""
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:LENGTH] if hashes else ""


def _add(found: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        found.update(_bytes(value))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        found.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, str | bytes | int | float | bool | None):
        found.update(repr(value).encode())
    elif isinstance(value, Mapping):
        for key in value:
            found.update(repr(key).encode())
            _add(found, value[key])
    elif isinstance(value, list | tuple | np.ndarray):
        for item in value:
            _add(found, item)
    elif hasattr(value, "__dict__"):  # an object that holds tensors, such as a graph
        _add(found, vars(value))


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach()
    plain = plain.full_tensor() if hasattr(plain, "full_tensor") else plain  # of a distributed tensor
    plain = plain.to_dense() if plain.is_sparse else plain
    flat = plain.cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""
