"""Worker processes on this machine. One that dies is replaced, and its chunk is trained once more.

A chunk that fails is halved until the trial that is to blame is alone: the others do not fail with it.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker, spawn
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from clipbench.errors import ClipbenchError
from clipbench.execution.protocol import DONE, EPOCH_END, FAILED, PROGRESS, TRAIN, ChoosePruned, EpochReport
from clipbench.planning.plan import Chunk

# Imported once by the process from which all workers are forked; the parent itself never imports torch.
# The last three are what making an optimizer and loading a table import: seconds, in each worker anew.
WORKER = "clipbench.execution.worker"
PRELOAD = ("clipbench.execution.preload", WORKER, "torch._dynamo", "sklearn.datasets", "sklearn.model_selection")
ATTEMPTS = 2
# Where so many trials failed alone, it is not they who are to blame, and looking for more of them takes time.
MOST_ALONE = 32
IMPATIENCE = 0.5  # seconds
WORKER_NAME = "clipbench worker"


@dataclass(frozen=True)
class Event:
    """Something that happened to a chunk: progress, its records, or the error that ended it."""

    chunk: Chunk
    lane_steps: int = 0
    records: Any = None  # what the work came to: of training, `Records`
    error: str = ""


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection
    chunk: Chunk | None = None
    told: int = field(default=0)  # lane-steps of the chunk under way
    question: EpochReport | None = None  # that it waits to have answered

    def begin(self, chunk: Chunk, arguments: tuple[Any, ...]) -> None:
        self.chunk, self.told, self.question = chunk, 0, None
        self.send(TRAIN, arguments)

    def answer(self, pruned: Collection[str]) -> None:
        self.question = None
        with suppress(OSError):
            self.connection.send(frozenset(pruned))

    def send(self, task: str, arguments: tuple[Any, ...]) -> None:
        """Hand a task over. That a worker died while it was idle shows when its answer is waited for."""
        with suppress(OSError):
            self.connection.send((task, arguments))


class WorkerPool:
    """A pool of workers. Use it as a context: they are gone when it ends, however it ends."""

    def __init__(self, workers: int | None = None) -> None:
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload(list(PRELOAD))
        self.size = workers or cores()
        self._workers: list[_Worker] = []
        self._failed_alone = 0

    def __enter__(self) -> WorkerPool:
        # In a thread: forking waits until torch is imported, and the parent has imports of its own to do.
        self._first = threading.Thread(target=self._hire_first, daemon=True)
        self._first.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Somebody who interrupts does not wait for torch. What is still loading then ends by itself, without a parent.
        self._first.join(None if error is None else IMPATIENCE)
        for worker in self._workers:
            worker.connection.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    def call(self, function: str, *arguments: Any) -> Any:
        """The result of `package.module:function`, worked out in a worker: for what needs torch."""
        self._first.join()
        if not self._workers:
            raise ClipbenchError("No worker process could be started. Is torch installed and whole?")
        worker = self._workers[0]
        worker.send(function, arguments)
        while True:
            try:
                kind, result = worker.connection.recv()
            except (EOFError, OSError):
                raise ClipbenchError("The process that reads the experiment died. Is there enough memory?") from None
            if kind == FAILED:
                raise result if isinstance(result, ClipbenchError) else ClipbenchError(str(result))
            if kind == DONE:
                return result

    def train(
        self,
        chunks: Sequence[Chunk],
        device: str,
        work: str = "clipbench.engine:train",
        choose_pruned: ChoosePruned | None = None,
    ) -> Iterator[Event]:
        """Train the chunks, as many at once as there are workers, and yield what happens to them.

        `work` names the function that is called for each chunk. `choose_pruned` returns the trials to prune. It is
        called when all chunks under way have reached the end of an epoch, with their reports in the order of `chunks`,
        so that its input does not depend on timing. A chunk that is trained again reports from its first epoch.
        """
        waiting, order = deque(chunks), _order(chunks)
        while len(self._workers) < min(self.size, len(chunks)):
            self._workers.append(self._hire())
        while True:
            for worker in self._workers:
                if worker.chunk is None and waiting:
                    chunk = waiting.popleft()
                    worker.begin(chunk, (choose_pruned is not None, work, chunk.trials, device, chunk.lanes))
            busy = {worker.connection: worker for worker in self._workers if worker.chunk}
            if not busy:
                return
            if choose_pruned and all(worker.question for worker in busy.values()):
                _answer(list(busy.values()), choose_pruned, order)
            for connection in wait(list(busy)):
                yield from self._listen(busy[connection], waiting)  # type: ignore[index]

    def _listen(self, worker: _Worker, waiting: deque[Chunk]) -> Iterator[Event]:
        chunk = worker.chunk
        assert chunk is not None
        try:
            kind, result = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._replace(worker, chunk, waiting)
            return
        if kind == PROGRESS:
            worker.told += result
            yield Event(chunk, lane_steps=result)
            return
        if kind == EPOCH_END:
            worker.question = EpochReport(chunk, *result)
            return
        worker.chunk = None
        if kind == DONE:
            yield Event(chunk, lane_steps=chunk.lane_steps - worker.told, records=result)
        else:
            yield self._failed(chunk, worker.told, str(result), waiting)

    def _failed(self, chunk: Chunk, told: int, error: str, waiting: deque[Chunk]) -> Event:
        """Try each half of a chunk, or give a single trial up."""
        if len(chunk.trials) > 1 and self._failed_alone < MOST_ALONE:
            waiting.extend(chunk.halves())
            return Event(chunk, lane_steps=-told)
        self._failed_alone += 1
        return Event(chunk, lane_steps=chunk.lane_steps - told, error=error)

    def _replace(self, worker: _Worker, chunk: Chunk, waiting: deque[Chunk]) -> Iterator[Event]:
        """A worker died: by a user's model that crashed, or for want of memory."""
        worker.process.join()
        code = worker.process.exitcode
        self._workers[self._workers.index(worker)] = self._hire()
        if chunk.attempt < ATTEMPTS:
            waiting.append(chunk.again())
            yield Event(chunk, lane_steps=-worker.told)
        else:
            error = f"the worker process died {ATTEMPTS} times (exit code {code})"
            yield self._failed(chunk, worker.told, error, waiting)

    def _hire_first(self) -> None:
        # What is started from this thread inherits its mask: no traceback of a child that was interrupted too early.
        resource_tracker.ensure_running()  # which would lift the mask on its start
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        with suppress(EOFError, OSError):  # interrupted, or ended by somebody; `call` says so
            self._workers.append(self._hire())

    def _hire(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), name=WORKER_NAME, daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


def _answer(workers: Sequence[_Worker], choose_pruned: ChoosePruned, order: Mapping[str, int]) -> None:
    """Answer all of them at once."""
    questions = {worker.question: worker for worker in workers if worker.question}
    asked = sorted(questions, key=lambda question: min(order[trial.id] for trial in question.chunk.trials))
    for question, pruned in zip(asked, choose_pruned(asked), strict=True):
        questions[question].answer(pruned)


def _order(chunks: Sequence[Chunk]) -> dict[str, int]:
    """Where each trial stands, whatever chunk it will be in."""
    trials = itertools.chain.from_iterable(chunk.trials for chunk in chunks)
    return {trial.id: number for number, trial in enumerate(trials)}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_preparation_data = spawn.get_preparation_data


def _without_main(name: str) -> dict[str, Any]:
    """Keep a worker from importing the script that started it, which would run `clipbench.run` in it once more.

    Workers call functions by their names and need nothing of the script, so it takes no `if __name__ == "__main__"`.
    """
    data = _preparation_data(name)
    if name == WORKER_NAME:
        data.pop("init_main_from_path", None)
        data.pop("init_main_from_name", None)
    return data


spawn.get_preparation_data = _without_main


def _serve(connection: Connection) -> None:
    from clipbench.execution.worker import serve

    serve(connection)
