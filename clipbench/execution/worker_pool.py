"""A pool of worker processes. A worker that dies is replaced, and its chunk is trained once more.

A chunk that fails is split in halves until the failing trial is alone, so that the others do not fail with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from clipbench.errors import ClipbenchError
from clipbench.execution import process_output, worker_end
from clipbench.execution.attentive_wait import AttentiveWait
from clipbench.execution.import_server import WORKER_NAME, start_importing, uninterrupted_children
from clipbench.execution.process_limits import cores, memory_for_each
from clipbench.execution.protocol import (
    DONE,
    EPOCH_END,
    FAILED,
    IMPORT,
    NOTE,
    PROGRESS,
    ChoosePruned,
    EpochReport,
    Event,
    Surroundings,
)
from clipbench.execution.script_trials import ScriptTrials
from clipbench.execution.worker_end import WorkerEndedError, why_ended
from clipbench.store import checkpoint_files

if TYPE_CHECKING:
    from clipbench.planning.plan import Chunk

ATTEMPTS = 2  # of a chunk whose worker dies
MOST_SINGLE_FAILURES = 32  # after so many, chunks are no longer halved: the trials are not the cause
LOOK_SECONDS = 1.0  # between two looks at what workers print
MOST_PRINTED = 2000  # characters that are shown of what is printed before training
INTERRUPT_SECONDS = 0.5  # to wait for the first worker after an interrupt
CHECKPOINT_SECONDS = 5.0  # to wait for checkpoints after an interrupt


@dataclass(eq=False)
class _Worker:
    place: int  # of the worker: those of different places use different GPUs
    process: BaseProcess
    connection: Connection
    surroundings: Surroundings
    chunk: Chunk | None = None
    keeps_checkpoints: bool = False  # of its chunk
    progress: int = 0  # reported lane-steps of the current chunk
    report: EpochReport | None = None  # to which the worker waits for an answer
    printed: int = 0  # bytes, before the current task
    imports: str = ""  # the module of the user's that it is importing

    def begin(self, chunk: Chunk, work: str, device: str, messages: Sequence[str], options: Mapping[str, Any]) -> None:
        self.chunk, self.progress, self.report = chunk, 0, None
        self.keeps_checkpoints = "checkpoint" in options
        self.send(work, (chunk.trials, device, chunk.lanes, chunk.loop_reason), messages, options)

    def answer(self, pruned: Collection[str]) -> None:
        self.report = None
        with suppress(OSError):
            self.connection.send(frozenset(pruned))

    def send(
        self,
        function: str,
        arguments: Sequence[Any],
        messages: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a task. If the worker has died, receiving its reply fails."""
        self.printed = process_output.size_of(self.surroundings.log)
        with suppress(OSError):
            self.connection.send((function, arguments, messages, options or {}, self.surroundings))


class WorkerPool:
    """A pool of workers that ends with its context."""

    def __init__(self, workers: int | None = None) -> None:
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        start_importing()
        self.size = workers or cores()
        self._workers: list[_Worker] = []
        self._single_failures = 0
        self._wait = AttentiveWait()
        self._scratch = tempfile.TemporaryDirectory(prefix="clipbench-", ignore_cleanup_errors=True)
        self._folder = Path(self._scratch.name)  # that has what the workers print
        self._tells_of_logs, self._looked = False, 0.0  # at what they print

    def __enter__(self) -> WorkerPool:
        # In a thread: forking waits until torch is imported, while the parent does its own imports.
        self._first = threading.Thread(target=self._start_first, daemon=True)
        self._first.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an interrupt, do not wait for torch: a process that is still loading ends without its parent.
        self._first.join(None if error is None else INTERRUPT_SECONDS)
        try:
            if isinstance(error, KeyboardInterrupt):
                self._write_checkpoints()
        finally:  # also of a second interrupt
            self._kill()
            self._scratch.cleanup()
            process_output.remove_empty(self._folder)

    def _write_checkpoints(self) -> None:
        """Let every worker that can keep the state of its chunk, and end."""
        busy = [worker.process for worker in self._workers if worker.chunk and worker.keeps_checkpoints]
        for process in busy if hasattr(signal, "SIGUSR1") else ():
            with suppress(OSError):
                os.kill(process.pid or 0, signal.SIGUSR1)
        end = time.monotonic() + CHECKPOINT_SECONDS
        for process in busy:
            process.join(max(0.0, end - time.monotonic()))

    def _kill(self) -> None:
        for worker in self._workers:
            worker.connection.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    def call(self, function: str, *arguments: Any) -> Any:
        """Call `package.module:function` in a worker, for what needs torch, and return its result."""
        self._first.join()
        if not self._workers:
            raise ClipbenchError("no worker process could be started. Check that `import torch` works.")
        worker = self._workers[0]
        worker.send(function, arguments)
        while True:
            try:
                kind, result = worker.connection.recv()
            except (EOFError, OSError):
                end = why_ended(worker.process, worker.surroundings, worker.printed)
                raise WorkerEndedError(end.text, worker.imports) from None
            if kind == IMPORT:
                worker.imports = result
            if kind == FAILED:
                error = result if isinstance(result, ClipbenchError) else ClipbenchError(str(result))
                if printed := self.printed():
                    error.add_note(printed)
                raise error
            if kind == DONE:
                return result

    def printed(self) -> str:
        """Return what functions of the user's have printed in calls, as a sentence; empty if nothing."""
        text = process_output.end_of(self._workers[0].surroundings.log, MOST_PRINTED).strip()
        return f"Functions of the experiment have printed:\n{text}" if text else ""

    def train(
        self,
        chunks: Sequence[Chunk],
        device: str,
        work: str = "clipbench.engine:train",
        choose_pruned: ChoosePruned | None = None,
        folder: Path | None = None,
    ) -> Iterator[Event]:
        """Train the chunks, as many at once as there are workers, and yield what happens to them.

        `work` names the function that is called for each chunk. `choose_pruned` returns the trials to prune. It is
        called when all chunks under way have reached the end of an epoch, with their reports in the order of `chunks`,
        so that its input does not depend on timing. A chunk that is trained again reports from its first epoch.
        The `folder` gets checkpoints, from which chunks go on that were interrupted, and what scripts print and save.
        """
        if chunks and chunks[0].is_script:
            start_importing(is_script=True)
            with uninterrupted_children():
                yield from ScriptTrials(self._context, self.size, folder or Path()).train(chunks, device, choose_pruned)
            return
        self._folder, self._tells_of_logs = folder or self._folder, folder is not None
        memory = memory_for_each(max(1, min(self.size, len(chunks))))
        waiting, trials = deque(chunks), [trial for chunk in chunks for trial in chunk.trials]
        order = {trial.id: number for number, trial in enumerate(trials)}  # whatever chunk a trial will be in
        messages = (PROGRESS, EPOCH_END) if choose_pruned else (PROGRESS,)
        while len(self._workers) < min(self.size, len(chunks)):
            self._workers.append(self._start(len(self._workers)))
        while True:
            for worker in self._workers:
                if worker.chunk is None and waiting:
                    chunk = waiting.popleft()
                    kept = folder and not choose_pruned and checkpoint_files.path_of(folder, chunk.stem)
                    worker.surroundings = self._surroundings(worker.place, memory)
                    worker.begin(chunk, work, device, messages, {"checkpoint": str(kept)} if kept else {})
            busy = {worker.connection: worker for worker in self._workers if worker.chunk}
            if not busy:
                yield from self._cut_logs(chunks[-1]) if chunks else ()
                return
            if choose_pruned and all(worker.report for worker in busy.values()):
                _send_pruned(list(busy.values()), choose_pruned, order)
            for connection in self._wait(list(busy), LOOK_SECONDS):
                yield from self._listen(busy[connection], waiting)
            if time.monotonic() > self._looked + LOOK_SECONDS:
                yield from self._cut_logs(chunks[-1])

    def _listen(self, worker: _Worker, waiting: deque[Chunk]) -> Iterator[Event]:
        chunk = worker.chunk
        assert chunk is not None
        try:
            kind, result = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._replace(worker, chunk, waiting)
            return
        if kind == PROGRESS:
            worker.progress += result
            yield Event(chunk, lane_steps=result)
            return
        if kind in (NOTE, IMPORT):
            yield Event(chunk, note=result if kind == NOTE else "")
            return
        if kind == EPOCH_END:
            worker.report = EpochReport(chunk, *result)
            return
        worker.chunk = None
        if kind == DONE:
            yield Event(chunk, lane_steps=chunk.lane_steps - worker.progress, records=result)
        else:
            yield self._failed(chunk, worker.progress, str(result), waiting, worker_end.ONE)

    def _failed(self, chunk: Chunk, progress: int, error: str, waiting: deque[Chunk], counts: int) -> Event:
        """Train each half of a chunk that failed, or give up a single trial."""
        if len(chunk.trials) > 1 and self._single_failures < MOST_SINGLE_FAILURES:
            waiting.extendleft(reversed(chunk.halves()))
            return Event(chunk, lane_steps=-progress)
        self._single_failures += counts
        return Event(chunk, lane_steps=chunk.lane_steps - progress, error=error)

    def _replace(self, worker: _Worker, chunk: Chunk, waiting: deque[Chunk]) -> Iterator[Event]:
        """Replace a worker that has ended, after a crash in a user's model or for lack of memory."""
        end = why_ended(worker.process, worker.surroundings, worker.printed, chunk.attempt)
        self._workers[worker.place] = self._start(worker.place)
        if end.counts == worker_end.OF_HANGING and self._wait.was_stopped:  # its step took the time of the stop too
            waiting.append(chunk)
            yield Event(chunk, lane_steps=-worker.progress)
        elif end.is_certain or chunk.attempt == ATTEMPTS:
            error = f"the worker process {end.text}"
            yield self._failed(chunk, worker.progress, error, waiting, end.counts)
        else:
            waiting.append(chunk.again())
            yield Event(chunk, lane_steps=-worker.progress)

    def _cut_logs(self, chunk: Chunk) -> Iterator[Event]:
        """Cut what workers have printed where it is long, and say once where it is."""
        self._looked = time.monotonic()
        for worker in self._workers:
            log = worker.surroundings.log
            process_output.cut(log)
            if self._tells_of_logs and process_output.size_of(log):
                self._tells_of_logs = False
                yield Event(chunk, note=f"functions of the experiment print something: {log}")

    def _start_first(self) -> None:
        with uninterrupted_children(), suppress(EOFError, OSError):  # interrupted or killed; `call` reports it
            self._workers.append(self._start(0))

    def _start(self, place: int) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, place), name=WORKER_NAME, daemon=True)
        process.start()
        theirs.close()
        return _Worker(place, process, ours, self._surroundings(place, memory_for_each(1)))

    def _surroundings(self, place: int, memory: int | None) -> Surroundings:
        return Surroundings(process_output.output_of_worker(self._folder, place), memory)


def _send_pruned(workers: Sequence[_Worker], choose_pruned: ChoosePruned, order: Mapping[str, int]) -> None:
    """Choose the trials to prune from the reports of all workers, and send each worker its own."""
    by_report = {worker.report: worker for worker in workers if worker.report}
    reports = sorted(by_report, key=lambda report: min(order[trial.id] for trial in report.chunk.trials))
    for report, pruned in zip(reports, choose_pruned(reports), strict=True):
        by_report[report].answer(pruned)


def _serve(connection: Connection, place: int) -> None:
    from clipbench.execution.worker import serve

    serve(connection, place)
