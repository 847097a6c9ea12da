"""What commands plan and train with: workers, which end with their context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from clipbench.execution.executor import Task
from clipbench.execution.import_server import start_importing, uninterrupted_children
from clipbench.execution.local_workers import LocalWorkers
from clipbench.execution.protocol import ChoosePruned, Event
from clipbench.execution.ray_workers import RaySettings, RayWorkers
from clipbench.execution.script_trials import ScriptTrials
from clipbench.execution.training_queue import TrainingQueue

if TYPE_CHECKING:
    from clipbench.planning.plan import Chunk


class WorkerPool:
    """Workers, of which one on this machine also plans."""

    def __init__(self, workers: int | None = None, cluster: RaySettings | None = None) -> None:
        """With a `cluster`, its workers train."""
        self._cluster = RayWorkers(cluster, workers) if cluster else None
        self._local = LocalWorkers(1 if cluster else workers)
        self._queue = TrainingQueue(self._cluster or self._local)

    def __enter__(self) -> WorkerPool:
        self._local.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._local.end(error)
        finally:
            if self._cluster:
                self._cluster.end()

    @property
    def size(self) -> int:
        """How many chunks are trained at once."""
        return (self._cluster or self._local).size

    @size.setter
    def size(self, workers: int) -> None:
        (self._cluster or self._local).size = workers

    def call(self, function: str, *arguments: Any) -> Any:
        """Call `package.module:function` in a worker, for what needs torch, and return its result."""
        return self._local.call(function, *arguments)

    def printed(self) -> str:
        """Return what functions of the user's have printed in calls, as a sentence; empty if nothing."""
        return self._local.printed()

    def train(
        self,
        chunks: Sequence[Chunk],
        device: str,
        work: str = "clipbench.engine:train",
        choose_pruned: ChoosePruned | None = None,
        folder: Path | None = None,
    ) -> Iterator[Event]:
        """Train the chunks, as many at once as there are workers, and yield what happens to them.

        `work` names the function that is called for each chunk. `choose_pruned` returns the trials to prune, at the
        end of an epoch of all chunks under way. A chunk that is trained again reports from its first epoch.
        The `folder` gets checkpoints, from which chunks go on that were interrupted, and what scripts print and save.
        """
        if chunks and chunks[0].is_script:
            start_importing(is_script=True)
            with uninterrupted_children():
                yield from ScriptTrials(self._local.context, self.size, folder or Path()).train(
                    chunks, device, choose_pruned
                )
        elif chunks:
            task = Task(work, device, choose_pruned is not None, folder)
            yield from self._queue.train(chunks, task, choose_pruned)
