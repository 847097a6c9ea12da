"""Which device trains."""

from __future__ import annotations

import torch

from clipbench.errors import InputError, Place, Problem

KNOWN = ("auto", "cpu", "cuda", "mps")


def choose(wanted: str) -> str:
    """The device for `--device`: `auto` is a GPU if there is one."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available[wanted]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise InputError([Problem(Place(f"--device {wanted}"), "this machine has none.", f"It has: {there}.")])
    return wanted


def describe() -> str:
    """What `auto` chooses, in words."""
    device = choose("auto")
    return f"cuda ({torch.cuda.get_device_name()})" if device == "cuda" else device
