"""The options `read` of a data function of the user's own: how examples are read, which changes no number."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Examples that take more are read batch by batch. Every process that trains has a copy of what is in memory.
MOST_BYTES = 2**30


@dataclass(frozen=True)
class ReadOptions:
    """How the examples of a PyTorch data set, or of arrays in files, are read."""

    workers: int = 0  # processes that read batches ahead
    prefetch: int = 2  # batches of each of them
    in_memory: bool | None = None  # None: if all examples take at most `MOST_BYTES`

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ReadOptions:
        """Return those among the options of a data component."""
        given = {name: options[f"read.{name}"] for name in cls.__annotations__ if f"read.{name}" in options}
        return cls(**given)

    @property
    def processes(self) -> int:
        """The number of worker processes; none where a process cannot fork."""
        return self.workers if "fork" in multiprocessing.get_all_start_methods() else 0

    def fits(self, size: int) -> bool:
        """Whether examples of so many bytes are read into memory."""
        return size <= MOST_BYTES if self.in_memory is None else self.in_memory


def shown(size: int) -> str:
    """Return a number of bytes in words."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**28 else f"{size / 2**20:,.1f} MiB"
