"""The options that say which cluster trains, for the command line and the Python API."""

from __future__ import annotations

from clipbench.commands.devices import ExecutorName
from clipbench.errors import InputError, Place
from clipbench.execution.ray_workers import AUTO, RaySettings


def cluster_of(executor: str, address: str | None, cpus: float | None, gpus: float | None) -> RaySettings | None:
    """Return the cluster that trains; None for this machine."""
    if cpus is not None and cpus <= 0:
        raise InputError.at(Place("--cpus-per-worker"), f"expected a number above 0, got {cpus:g}.")
    if executor == ExecutorName.ray:
        return RaySettings(address or AUTO, 1.0 if cpus is None else cpus, gpus or 0.0)
    given = {"--ray-address": address, "--cpus-per-worker": cpus, "--gpus-per-worker": gpus}
    for option, value in given.items():
        if value is not None:
            raise InputError.at(Place(option), "is for Ray clusters.", "Add --executor ray.")
    return None
