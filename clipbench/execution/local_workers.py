"""Worker processes of this machine. One that ends is replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.errors import ClipbenchError
from clipbench.execution import process_output, worker_end
from clipbench.execution.attentive_wait import AttentiveWait
from clipbench.execution.executor import Message, Task
from clipbench.execution.import_server import WORKER_NAME, start_importing, uninterrupted_children
from clipbench.execution.process_limits import cores, memory_for_each
from clipbench.execution.protocol import DONE, ENDED, EPOCH_END, FAILED, FINAL, IMPORT, NOTE, PROGRESS, Surroundings
from clipbench.execution.worker_end import WorkerEndedError, why_ended
from clipbench.store import checkpoint_files

if TYPE_CHECKING:
    from clipbench.planning.plan import Chunk

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
    printed: int = 0  # bytes, before the current task
    imports: str = ""  # the module of the user's that it is importing

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


class LocalWorkers:
    """An `Executor` of as many processes as `size` says, of which the first also does what needs torch in planning."""

    def __init__(self, workers: int | None, neighbours: int = 1) -> None:
        """`neighbours` is how many of these share the memory of the machine."""
        methods = multiprocessing.get_all_start_methods()
        self.context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        start_importing()
        self.size, self._neighbours = workers or cores(), neighbours
        self._workers: list[_Worker] = []
        self._task, self._memory = Task("", ""), memory_for_each(1)
        self._wait = AttentiveWait()
        self._scratch = tempfile.TemporaryDirectory(prefix="clipbench-", ignore_cleanup_errors=True)
        self._folder = Path(self._scratch.name)  # that has what the workers print
        self._tells_of_logs, self._looked = False, 0.0  # at what they print

    def start(self) -> None:
        # In a thread: forking waits until torch is imported, while the parent does its own imports.
        self._first = threading.Thread(target=self._start_first, daemon=True)
        self._first.start()

    def end(self, error: BaseException | None) -> None:
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

    def prepare(self, task: Task, chunks: Sequence[Chunk]) -> None:
        workers = max(1, min(self.size, len(chunks)))
        self._task, self._memory = task, memory_for_each(workers * self._neighbours)
        self._folder, self._tells_of_logs = task.folder or self._folder, task.folder is not None
        while len(self._workers) < workers:
            self._workers.append(self._start(len(self._workers)))

    @property
    def has_room(self) -> bool:
        return any(worker.chunk is None for worker in self._workers)

    def begin(self, chunk: Chunk) -> _Worker:
        worker = next(worker for worker in self._workers if worker.chunk is None)
        task = self._task
        kept = task.folder and not task.asks and checkpoint_files.path_of(task.folder, chunk.stem)
        worker.chunk, worker.keeps_checkpoints = chunk, bool(kept)
        worker.surroundings = self._surroundings(worker.place, self._memory)
        given = chunk.trials, task.device, chunk.lanes, chunk.loop_reason
        messages = (PROGRESS, EPOCH_END) if task.asks else (PROGRESS,)
        worker.send(task.function, given, messages, {"checkpoint": str(kept)} if kept else {})
        return worker

    def answer(self, worker: _Worker, pruned: Collection[str]) -> None:
        with suppress(OSError):
            worker.connection.send(frozenset(pruned))

    def messages(self) -> Iterator[Message]:
        busy = {worker.connection: worker for worker in self._workers if worker.chunk}
        for connection in self._wait(list(busy), LOOK_SECONDS):
            worker = busy[connection]
            message = self._received(worker)
            if message.kind in FINAL:
                worker.chunk = None
                yield from self._cut_log(worker)
            if message.kind != IMPORT:
                yield message
        if time.monotonic() > self._looked + LOOK_SECONDS:
            self._looked = time.monotonic()
            for worker in self._workers:
                yield from self._cut_log(worker)

    def _received(self, worker: _Worker) -> Message:
        try:
            return Message(worker, *worker.connection.recv())
        except (EOFError, OSError):
            attempt = worker.chunk.attempt if worker.chunk else 1
            end = why_ended(worker.process, worker.surroundings, worker.printed, attempt)
            if end.counts == worker_end.OF_HANGING and self._wait.was_stopped:  # its step took the time of the stop too
                end = replace(end, is_excused=True)
            self._workers[worker.place] = self._start(worker.place)
            return Message(worker, ENDED, end)

    def _cut_log(self, worker: _Worker) -> Iterator[Message]:
        """Cut what a worker has printed where it is long, and say once where it is."""
        log = worker.surroundings.log
        process_output.cut(log)
        if self._tells_of_logs and process_output.size_of(log):
            self._tells_of_logs = False
            yield Message(None, NOTE, f"functions of the experiment print something: {log}")

    def _start_first(self) -> None:
        with uninterrupted_children(), suppress(EOFError, OSError):  # interrupted or killed; `call` reports it
            self._workers.append(self._start(0))

    def _start(self, place: int) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_serve, args=(theirs, place), name=WORKER_NAME, daemon=True)
        process.start()
        theirs.close()
        return _Worker(place, process, ours, self._surroundings(place, memory_for_each(1)))

    def _surroundings(self, place: int, memory: int | None) -> Surroundings:
        return Surroundings(process_output.output_of_worker(self._folder, place), memory)


def _serve(connection: Connection, place: int) -> None:
    from clipbench.execution.worker import serve

    serve(connection, place)
