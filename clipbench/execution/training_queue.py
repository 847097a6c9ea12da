"""The chunks that are to be trained, and what follows when one fails: the same wherever they are trained.

A chunk whose worker ends is trained once more. A chunk that fails is split in halves until the failing trial is alone,
so that the others do not fail with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipbench.execution import worker_end
from clipbench.execution.executor import Executor, Message, Task
from clipbench.execution.protocol import (
    DONE,
    EPOCH_END,
    FAILED,
    FINAL,
    NOTE,
    PROGRESS,
    ChoosePruned,
    EpochReport,
    Event,
)
from clipbench.execution.worker_end import WorkerEnd

if TYPE_CHECKING:
    from clipbench.planning.plan import Chunk

ATTEMPTS = 2  # of a chunk whose worker ends
MOST_SINGLE_FAILURES = 32  # after so many, chunks are no longer halved: the trials are not the cause


@dataclass(eq=False)
class _Running:
    """A chunk that a worker trains."""

    chunk: Chunk
    progress: int = 0  # reported lane-steps
    report: EpochReport | None = None  # to which the worker waits for an answer


class TrainingQueue:
    """Hands chunks to workers as they become free, and keeps the count of failures over several calls."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._single_failures = 0
        self._waiting: deque[Chunk] = deque()
        self._running: dict[Any, _Running] = {}  # by worker

    def train(self, chunks: Sequence[Chunk], task: Task, choose_pruned: ChoosePruned | None) -> Iterator[Event]:
        """Train the chunks, and yield what happens to them.

        `choose_pruned` is called when all chunks under way have reached the end of an epoch, with their reports in the
        order of `chunks`, so that its input does not depend on timing.
        """
        self._waiting, self._running = deque(chunks), {}
        trials = [trial for chunk in chunks for trial in chunk.trials]
        order = {trial.id: number for number, trial in enumerate(trials)}  # whatever chunk a trial will be in
        self._executor.prepare(task, chunks)
        while True:
            while self._waiting and self._executor.has_room:
                chunk = self._waiting.popleft()
                self._running[self._executor.begin(chunk)] = _Running(chunk)
            if not (self._running or self._waiting):
                return
            if choose_pruned and self._running and all(running.report for running in self._running.values()):
                self._answer(choose_pruned, order)
            for message in self._executor.messages():
                if message.worker is None:
                    yield Event(chunks[-1], note=message.content)
                else:
                    yield from self._listen(message)

    def _answer(self, choose_pruned: ChoosePruned, order: dict[str, int]) -> None:
        """Choose the trials to prune from the reports of all workers, and send each worker its own."""
        reports = {worker: running.report for worker, running in self._running.items() if running.report}
        ordered = sorted(reports.items(), key=lambda pair: min(order[trial.id] for trial in pair[1].chunk.trials))
        chosen = choose_pruned([report for _, report in ordered])
        for (worker, _), pruned in zip(ordered, chosen, strict=True):
            self._running[worker].report = None
            self._executor.answer(worker, pruned)

    def _listen(self, message: Message) -> Iterator[Event]:
        running, kind, content = self._running[message.worker], message.kind, message.content
        chunk = running.chunk
        if kind == PROGRESS:
            running.progress += content
            yield Event(chunk, lane_steps=content)
        elif kind == NOTE:
            yield Event(chunk, note=content)
        elif kind == EPOCH_END:
            running.report = EpochReport(chunk, *content)
        elif kind in FINAL:
            del self._running[message.worker]
            if kind == DONE:
                yield Event(chunk, lane_steps=chunk.lane_steps - running.progress, records=content)
            elif kind == FAILED:
                yield self._failed(running, str(content), worker_end.ONE)
            else:
                yield self._ended(running, content)

    def _failed(self, running: _Running, error: str, counts: int) -> Event:
        """Train each half of a chunk that failed, or give up a single trial."""
        chunk = running.chunk
        if len(chunk.trials) > 1 and self._single_failures < MOST_SINGLE_FAILURES:
            self._waiting.extendleft(reversed(chunk.halves()))
            return Event(chunk, lane_steps=-running.progress)
        self._single_failures += counts
        return Event(chunk, lane_steps=chunk.lane_steps - running.progress, error=error)

    def _ended(self, running: _Running, end: WorkerEnd) -> Event:
        """Train a chunk again whose worker has ended, after a crash in a user's model or for lack of memory."""
        chunk = running.chunk
        if not end.is_excused and (end.is_certain or chunk.attempt == ATTEMPTS):
            return self._failed(running, f"the worker process {end.text}", end.counts)
        self._waiting.append(chunk if end.is_excused else chunk.again())
        return Event(chunk, lane_steps=-running.progress)
