"""What can train: which devices this machine has, how many workers there may be, and where they run."""

from __future__ import annotations

from enum import StrEnum

from clipbench.errors import InputError, Place, Problem

MOST_WORKERS = 1024


class ExecutorName(StrEnum):
    """What `--executor` takes."""

    local = "local"
    ray = "ray"


class Device(StrEnum):
    """What `--device` takes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


def choose(wanted: str) -> str:
    """Return the device for `--device`: `auto` picks a GPU by CUDA if there is one.

    It does not pick Apple's: compiled kernels on the CPU are likely to be faster for small models, and nobody has
    measured both.
    """
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available[wanted]:
        names = ", ".join(name for name, is_available in available.items() if is_available)
        problem = Problem(Place(f"--device {wanted}"), "not available on this machine.", f"Available: {names}.")
        raise InputError([problem])
    return wanted


def capacity(device: str) -> tuple[int, int]:
    """Return how many cards there are of a device other than the CPU, and the free memory of the first, in bytes."""
    import torch

    if device == "mps":
        return 1, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return torch.cuda.device_count(), torch.cuda.mem_get_info()[0]


def describe() -> str:
    """Return what `auto` picks, with the name of the GPU."""
    import torch

    device = choose("auto")
    return f"cuda ({torch.cuda.get_device_name()})" if device == "cuda" else device
