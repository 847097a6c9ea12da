"""What trains chunks: workers of this machine, or of others. `TrainingQueue` decides what they train."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from clipbench.planning.plan import Chunk


@dataclass(frozen=True)
class Task:
    """What is done with each chunk: the function that is called with it, and what it is given beside it."""

    function: str  # package.module:function
    device: str
    asks: bool = False  # whether it reports at the end of each epoch, and waits for the trials to prune
    folder: Path | None = None  # of the results


@dataclass(frozen=True, eq=False)
class Message:
    """Something that a worker says, by the kinds of the protocol; None is all workers."""

    worker: Any
    kind: str
    content: Any


class Executor(Protocol):
    """Workers that train chunks. After `DONE`, `FAILED` and `ENDED`, a worker is free, or another takes its place."""

    def prepare(self, task: Task, chunks: Sequence[Chunk]) -> None:
        """Get ready to do a task with chunks."""

    @property
    def has_room(self) -> bool:
        """Whether a worker is free."""

    def begin(self, chunk: Chunk) -> Any:
        """Let a free worker train a chunk, and return the worker."""

    def answer(self, worker: Any, pruned: Collection[str]) -> None:
        """Tell a worker that has reported the end of an epoch which trials are pruned."""

    def messages(self) -> Iterator[Message]:
        """Wait a moment for what workers say, and yield it."""
