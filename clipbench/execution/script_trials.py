"""Trials of a script, each in a process of its own: as many at once as there are workers, with limits of time.

A process that dies is started once more, and goes on from what it saved. Trials that a search judges together, the
seeds of a point, wait at each report until all of them have come there. A trial that waits takes no worker.
"""

from __future__ import annotations

import importlib
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipbench.execution import process_output
from clipbench.execution.attentive_wait import AttentiveWait
from clipbench.execution.import_server import SCRIPT_NAME
from clipbench.execution.protocol import DONE, EPOCH_END, FAILED, PROGRESS, ChoosePruned, EpochReport, Event
from clipbench.execution.repeated_failures import RepeatedFailures

if TYPE_CHECKING:
    from clipbench.core.trial import Trial
    from clipbench.planning.plan import Chunk

# The function that a process calls, by its name: the parent process does not import torch.
RUN = "clipbench.scripts.trial_process:run_trial"
ATTEMPTS = 2  # of a trial whose process dies
LOOK_SECONDS = 0.5  # between two looks at the time and the output of trials
SILENT_SECONDS = 600.0  # without a step, after which a trial is named
SAVED = "checkpoints"  # folder beside the records


@dataclass(eq=False)
class _Process:
    """The process of one trial."""

    chunk: Chunk  # of this trial alone
    process: BaseProcess
    connection: Connection
    place: int
    log: Path
    since: float | None = None  # when it got its worker; None while it waits at a report
    seconds: float = 0.0  # with a worker, before that
    progress: int = 0  # reported units of the trial's progress
    steps: int = 0
    heard: float = field(default_factory=time.monotonic)  # when it last said something
    is_told: bool = False  # that it says nothing

    @property
    def used(self) -> float:
        return self.seconds + (time.monotonic() - self.since if self.since is not None else 0.0)

    def put_off(self, seconds: float) -> None:
        """Leave out a time in which all processes were stopped."""
        self.heard += seconds
        if self.since is not None:
            self.since += seconds

    def stop(self) -> None:
        """End the process and all that it has started."""
        self.connection.close()
        with suppress(OSError):  # it has no group of its own yet
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        process_output.cut(self.log)


@dataclass(eq=False)
class _Group:
    """Trials that are judged together: those of a chunk."""

    chunk: Chunk
    waiting: deque[Chunk]  # not started
    running: list[_Process] = field(default_factory=list)
    reported: dict[str, tuple[int, Mapping[str, float]]] = field(default_factory=dict)  # by trial: the last report
    blocked: list[_Process] = field(default_factory=list)  # wait for the answer to their report
    answered: deque[tuple[_Process, bool]] = field(default_factory=deque)  # wait for a worker, with their answer
    judged: int = 0  # reports that are answered
    pruned: set[str] = field(default_factory=set)

    @property
    def is_done(self) -> bool:
        return not (self.waiting or self.running or self.blocked or self.answered)

    @property
    def is_blocked(self) -> bool:
        return bool(self.blocked) and not (self.waiting or self.running or self.answered)

    @property
    def report(self) -> EpochReport:
        number = max(self.reported[process.chunk.trials[0].id][0] for process in self.blocked)
        measured = {trial: found for trial, (_, found) in self.reported.items() if trial not in self.pruned}
        return EpochReport(self.chunk, number, measured)


class ScriptTrials:
    """Runs chunks of trials of a script; the interface of `WorkerPool.train`."""

    def __init__(self, context: Any, workers: int, folder: Path) -> None:
        self._context, self._folder = context, folder
        self._free = list(range(workers))
        self._groups: list[_Group] = []
        self._steps: list[int] = []  # of trials that have finished, from which the progress of others is known
        self._failures = RepeatedFailures()
        self._wait = AttentiveWait()

    def train(self, chunks: Sequence[Chunk], device: str, choose_pruned: ChoosePruned | None) -> Iterator[Event]:
        try:
            yield from self._train(deque(chunks), device, choose_pruned)
        finally:
            for group in self._groups:
                for process in (*group.running, *group.blocked, *(process for process, _ in group.answered)):
                    process.stop()

    def _train(self, coming: deque[Chunk], device: str, choose_pruned: ChoosePruned | None) -> Iterator[Event]:
        while True:
            self._groups = [group for group in self._groups if not group.is_done]
            self._start(coming, device, choose_pruned is not None)
            running = {process.connection: (group, process) for group in self._groups for process in group.running}
            if not running:
                blocked = [group for group in self._groups if group.is_blocked]
                if not blocked or choose_pruned is None:
                    yield from self._failures.events()
                    return
                self._judge(blocked, choose_pruned)
                continue
            ready = self._wait(list(running), LOOK_SECONDS)
            for _, process in running.values():
                process.put_off(self._wait.stopped)
            for connection in ready:
                yield from self._listen(*running[connection])
            for group, process in running.values():
                if process in group.running:
                    yield from self._look(group, process)

    def _start(self, coming: deque[Chunk], device: str, is_judged: bool) -> None:
        """Give every free worker to a trial: first to those that have begun, then to the next of their chunks."""
        while self._free:
            answered = [(group, each) for group in self._groups for each in group.answered]
            # On a GPU, a process stays where it is.
            able = (pair for pair in answered if device == "cpu" or pair[1][0].place in self._free)
            waiting = next((group for group in self._groups if group.waiting), None)
            if found := next(able, None):
                group, (process, pruned) = found
                group.answered.remove(found[1])
                self._take(group, process)
                with suppress(OSError):
                    process.connection.send(pruned)
            elif waiting and self._failures.leaves_out(waiting.waiting[0]):
                waiting.waiting.popleft()
            elif waiting:
                self._run(waiting, waiting.waiting.popleft(), device, is_judged)
            elif coming and self._has_room(coming[0]):
                chunk = coming.popleft()
                self._groups.append(_Group(chunk, deque(replace(chunk, trials=(trial,)) for trial in chunk.trials)))
            else:
                return

    def _has_room(self, chunk: Chunk) -> bool:
        """Whether another chunk can begin: so few that all workers have something to do, since those that wait at a
        report keep their memory."""
        begun = sum(len(group.chunk.trials) for group in self._groups if not group.is_done)
        return begun == 0 or begun < len(self._free) + sum(len(group.running) for group in self._groups)

    def _run(self, group: _Group, chunk: Chunk, device: str, is_judged: bool) -> None:
        trial = chunk.trials[0]
        place = self._free[0]
        log = process_output.output_of(self._folder, trial.id)
        ours, theirs = self._context.Pipe()
        arguments = (theirs, (trial, device, place, log, self._saved(trial.id), is_judged))
        process = self._context.Process(target=_run_trial, args=arguments, name=SCRIPT_NAME, daemon=True)
        process.start()
        theirs.close()
        self._take(group, _Process(chunk, process, ours, place, log))

    def _saved(self, trial: str) -> Path:
        return self._folder / SAVED / f"{trial}.pt"

    def _take(self, group: _Group, process: _Process) -> None:
        process.place = self._free.pop(self._free.index(process.place) if process.place in self._free else 0)
        process.since = process.heard = time.monotonic()
        group.running.append(process)

    def _release(self, group: _Group, process: _Process) -> None:
        """Take the worker from a trial."""
        group.running.remove(process)
        process.seconds, process.since = process.used, None
        self._free.append(process.place)
        self._free.sort()

    def _listen(self, group: _Group, process: _Process) -> Iterator[Event]:
        chunk, trial = process.chunk, process.chunk.trials[0].id
        process.heard = time.monotonic()
        try:
            kind, content = process.connection.recv()
        except (EOFError, OSError):
            yield from self._died(group, process)
            return
        if kind == PROGRESS:
            yield from self._progress(process, content)
        elif kind == EPOCH_END:
            number, measured = content
            group.reported[trial] = number, measured
            self._release(group, process)
            if number <= group.judged:  # it has started again: it was not pruned there
                group.answered.append((process, False))
            else:
                group.blocked.append(process)
        else:
            self._release(group, process)
            process.stop()
            rest = chunk.lane_steps - process.progress
            if kind == DONE:
                self._steps.append(len(content.steps["step"]))
                self._ended(group, chunk.trials[0], str(content.records["status"][0]))
                yield Event(chunk, lane_steps=rest, records=content)
                self._saved(trial).unlink(missing_ok=True)  # once its records are kept
            else:
                self._ended(group, chunk.trials[0], FAILED, str(content))
                yield Event(chunk, lane_steps=rest, error=str(content))

    def _progress(self, process: _Process, steps: int) -> Iterator[Event]:
        """Report the share of the steps that are done, where the number of steps of another trial is known."""
        process.steps += steps
        if self._steps:
            share = min(process.steps / max(self._steps), 0.99)
            done = int(share * process.chunk.lane_steps)
            if done > process.progress:
                yield Event(process.chunk, lane_steps=done - process.progress)
                process.progress = done

    def _ended(self, group: _Group, trial: Trial, status: str, error: str = "") -> None:
        """Note how a trial ended: in later reports, one that diverged has no finite measure."""
        self._failures.note(trial, error)
        if status == "pruned" or (status == FAILED and trial.id in group.reported):
            group.pruned.add(trial.id)
        elif status == "diverged" and trial.id in group.reported:
            number, measured = group.reported[trial.id]
            group.reported[trial.id] = number, dict.fromkeys(measured, float("nan"))

    def _judge(self, groups: Sequence[_Group], choose_pruned: ChoosePruned) -> None:
        """Ask which trials are pruned, once all that are under way have come to a report."""
        reports = [group.report for group in groups]
        for group, report, pruned in zip(groups, reports, choose_pruned(reports), strict=True):
            group.judged = report.epoch
            for process in group.blocked:
                group.answered.append((process, process.chunk.trials[0].id in pruned))
            group.blocked = []

    def _look(self, group: _Group, process: _Process) -> Iterator[Event]:
        """End a trial that takes too long, cut an output that is too long, and say once that a trial takes no steps."""
        process_output.cut(process.log)
        trial = process.chunk.trials[0]
        script = trial.script
        silence = time.monotonic() - process.heard
        if silence > SILENT_SECONDS and not process.is_told:
            process.is_told = True
            text = f"{trial.arm} seed {trial.seed} has taken no step for {silence / 60:.0f} minutes."
            yield Event(process.chunk, note=f"{text} Its output: {process.log}. train.timeout limits its time.")
        limit = dict(script.aside).get("timeout") if script else None
        if isinstance(limit, int | float) and process.used > limit:
            yield from self._failed(group, process, f"main takes longer than train.timeout, {limit:g} s")

    def _died(self, group: _Group, process: _Process) -> Iterator[Event]:
        """Start the trial once more, or give it up."""
        process.process.join()
        if process.chunk.attempt < ATTEMPTS:
            self._release(group, process)
            process.stop()
            group.waiting.append(process.chunk.again())
            yield Event(process.chunk, lane_steps=-process.progress)
        else:
            code = process.process.exitcode
            ended = f"was killed by signal {-code}" if code and code < 0 else f"ended with exit code {code}"
            yield from self._failed(group, process, f"the process of the script {ended}, {ATTEMPTS} times")

    def _failed(self, group: _Group, process: _Process, error: str) -> Iterator[Event]:
        self._release(group, process)
        process.stop()
        self._ended(group, process.chunk.trials[0], FAILED, error)
        rest = process.chunk.lane_steps - process.progress
        yield Event(process.chunk, lane_steps=rest, error=f"{error}. {process_output.last_lines(process.log)}")


def _run_trial(connection: Connection, task: tuple[Any, ...]) -> None:
    module, _, function = RUN.partition(":")
    getattr(importlib.import_module(module), function)(connection, *task)
