"""What runs on a machine of a Ray cluster: an actor that keeps a worker process, and passes on what it says.

The worker process is that of `LocalWorkers`, with the same limits of time and memory, so that a trial does not depend
on where it is trained. The actor itself imports no torch.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench import __version__
from clipbench.errors import ClipbenchError
from clipbench.execution.executor import Task
from clipbench.execution.local_workers import LocalWorkers
from clipbench.execution.protocol import FINAL
from clipbench.execution.shipped_files import ShippedFiles

if TYPE_CHECKING:
    from clipbench.planning.plan import Chunk


@dataclass(frozen=True)
class Luggage:
    """What a relay needs of the machine that the command runs on."""

    version: str  # of clipbench
    files: Mapping[str, bytes]
    import_path: Sequence[str]


class Relay:
    """One worker process and its messages. One thread passes them on, another one takes the answers."""

    def __init__(self, luggage: Luggage, neighbours: int) -> None:
        """`neighbours` is how many relays share this machine."""
        if luggage.version != __version__:
            text = f"clipbench {__version__} is installed on {socket.gethostname()}, and {luggage.version} here"
            raise ClipbenchError(f"{text}. Install the same version everywhere.")
        self._files = ShippedFiles(luggage.files)
        self._files.unpack(luggage.import_path)
        self._workers = LocalWorkers(1, neighbours)
        self._worker: Any = None  # that has the chunk
        self._workers.start()
        self._workers.call("clipbench.engine:release_memory")  # which imports torch

    def node(self) -> str:
        """Return the name of the machine and of its processor."""
        return f"{socket.gethostname()}, {_processor()}"

    def train(self, task: Task, chunk: Chunk) -> Iterator[tuple[str, Any]]:
        """Train a chunk, and yield kind and content of each message."""
        here = replace(chunk, trials=self._files.relocated(chunk.trials))
        self._workers.prepare(replace(task, folder=None), [here])
        self._worker = self._workers.begin(here)
        while True:
            for message in self._workers.messages():
                yield message.kind, message.content
                if message.kind in FINAL:
                    return

    def answer(self, pruned: Collection[str]) -> None:
        self._workers.answer(self._worker, pruned)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
