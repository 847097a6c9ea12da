"""Workers on a Ray cluster, which come and go with its nodes. Ray is known to this file only."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipbench import __version__
from clipbench.core.records import Records
from clipbench.errors import ClipbenchError, InputError, Place
from clipbench.execution.executor import Message, Task
from clipbench.execution.protocol import DONE, ENDED, FAILED, FINAL, NOTE
from clipbench.execution.ray_relay import Luggage, Relay
from clipbench.execution.shipped_files import needed_files
from clipbench.execution.worker_end import WorkerEnd

if TYPE_CHECKING:
    from clipbench.planning.plan import Chunk

LOOK_SECONDS = 0.5  # to wait for what workers say
PATIENCE_SECONDS = 10.0  # without a worker, until it is said that they wait for nodes
MOST_LOSSES = 5  # of a chunk that count as accidents: after that it may be what takes its workers down
GROW_SECONDS = 1.0  # between two looks at what the cluster has
CONNECT_SECONDS = 5.0  # for a cluster to answer
AUTO = "auto"


@dataclass(frozen=True)
class RaySettings:
    """Where a cluster is, and what a worker takes of it."""

    address: str = AUTO  # the cluster that runs on this machine, or else one for this command
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(eq=False)
class _RayWorker:
    actor: Any
    starting: Any  # the reference to its node's name
    node: str = ""  # once it has started
    chunk: Chunk | None = None
    said: Any = None  # the stream of its messages


class RayWorkers:
    """An `Executor` of actors, as many as the cluster has room for and chunks need."""

    def __init__(self, settings: RaySettings, most: int | None = None) -> None:
        """`most` is the number of workers; without it, all that the cluster has room for."""
        try:
            import ray
        except ImportError:
            raise InputError.at(
                Place("--executor ray"), "Ray is not installed.", "Type pip install clipbench[ray]."
            ) from None
        self._ray, self._settings, self._most = ray, settings, most
        self._workers: list[_RayWorker] = []
        self._task, self._needed = Task("", ""), 0
        self._shipped: set[str] = set()  # paths of files
        self._luggage: Any = None  # the reference to them
        self._lost: Counter[str] = Counter()  # how often a chunk was lost, by its name
        self._alone_since, self._is_told = time.monotonic(), False
        self._grown = 0.0  # when the cluster was last asked what it has
        with _own_signals():
            self._connect()

    def _connect(self) -> None:
        ray, options = self._ray, {"logging_level": logging.ERROR, "log_to_driver": False}
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning, of workers without a GPU
        self._is_ours = not ray.is_initialized()
        if not self._is_ours:  # the program that calls clipbench has done so
            return
        # Ray prints what is lost to stdout, where the table or JSON goes, and has no option against it.
        printer = ray._private.worker
        printer.print_to_stdstream = lambda data, ignore_prefix=False: None
        if self._settings.address != AUTO:
            _check_address(self._settings.address)
        try:
            ray.init(address=self._settings.address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            if self._settings.address != AUTO:
                raise _no_cluster(self._settings.address, str(error).splitlines()[0]) from None
            ray.init(address="local", include_dashboard=False, **options)

    def end(self) -> None:
        self._dismiss()
        if self._is_ours:
            self._ray.shutdown()

    def _dismiss(self, *workers: _RayWorker) -> None:
        """End some workers, or all."""
        for worker in workers or tuple(self._workers):
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(worker.actor)
            self._workers.remove(worker)

    @property
    def size(self) -> int:
        """How many workers there can be: as asked for, or as the cluster has room for now, but at least one."""
        there, settings = self._ray.cluster_resources(), self._settings
        room = int(there.get("CPU", 0) // settings.cpus)
        if settings.gpus:
            room = min(room, int(there.get("GPU", 0) // settings.gpus))
        return self._most or max(1, room)

    @size.setter
    def size(self, workers: int) -> None:
        self._most = self._most and workers

    def prepare(self, task: Task, chunks: Sequence[Chunk]) -> None:
        files = needed_files(trial for chunk in chunks for trial in chunk.trials)
        if self._luggage is None or not files <= self._shipped:
            self._dismiss()  # they have other files
            self._shipped |= files
            contents = {path: Path(path).read_bytes() for path in sorted(self._shipped)}
            self._luggage = self._ray.put(Luggage(__version__, contents, tuple(map(os.path.abspath, sys.path))))
        self._task, self._needed = task, len(chunks)
        self._alone_since = time.monotonic()

    @property
    def has_room(self) -> bool:
        return any(worker.node and not worker.chunk for worker in self._workers)

    def begin(self, chunk: Chunk) -> _RayWorker:
        worker = next(worker for worker in self._workers if worker.node and not worker.chunk)
        worker.chunk = chunk
        worker.said = worker.actor.train.options(num_returns="streaming").remote(self._task, chunk)
        return worker

    def answer(self, worker: _RayWorker, pruned: Collection[str]) -> None:
        worker.actor.answer.remote(frozenset(pruned))

    def messages(self) -> Iterator[Message]:
        self._grow()
        waited = {worker.said if worker.node else worker.starting: worker for worker in self._workers}
        waited.pop(None, None)  # of workers that have nothing to do
        for each in self._ready(list(waited)):
            worker = waited[each]
            if worker.node:
                yield self._said(worker)
            else:
                self._has_started(worker)
        yield from self._waits_for_nodes()

    def _ready(self, waited: list[Any]) -> list[Any]:
        """Wait until somebody has something to say, and return all who have."""
        if not waited or not self._ray.wait(waited, timeout=LOOK_SECONDS)[0]:
            return []
        ready: list[Any] = self._ray.wait(waited, num_returns=len(waited), timeout=0)[0]
        return ready

    def _grow(self) -> None:
        """Ask for as many workers as there is work for. Those that the cluster has no room for wait for nodes."""
        if self._workers and time.monotonic() < self._grown + GROW_SECONDS:
            return
        self._grown, settings = time.monotonic(), self._settings
        wanted = min(self._needed, self.size)
        while len(self._workers) < wanted:
            options = {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "max_concurrency": 2}
            relay = self._ray.remote(**options)(Relay)
            actor = relay.remote(self._luggage, self._most_on_a_node())
            self._workers.append(_RayWorker(actor, actor.node.remote()))

    def _most_on_a_node(self) -> int:
        cpus = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        return max(1, int(max(cpus, default=1) // self._settings.cpus))

    def _has_started(self, worker: _RayWorker) -> None:
        errors = self._ray.exceptions
        try:
            worker.node = self._ray.get(worker.starting)
            self._alone_since = time.monotonic()
        except errors.RayError as error:
            self._workers.remove(worker)
            if getattr(error, "actor_init_failed", False) or isinstance(error, errors.RayTaskError):
                text = str(error).strip().splitlines()[-1]
                raise ClipbenchError(f"a worker cannot be started on the cluster: {text}") from None

    def _said(self, worker: _RayWorker) -> Message:
        errors = self._ray.exceptions
        try:
            kind, content = self._ray.get(next(worker.said))
        except errors.RayTaskError as error:  # of the relay itself
            kind, content = FAILED, str(error).strip().splitlines()[-1]
        except (errors.RayError, StopIteration) as error:
            self._dismiss(worker)  # it may only be out of reach
            self._alone_since = time.monotonic()
            short = isinstance(error, errors.OutOfMemoryError)
            text = f"on {worker.node} was ended for lack of memory." if short else f"on {worker.node} was lost."
            assert worker.chunk
            self._lost[worker.chunk.stem] += 1
            is_accident = not short and self._lost[worker.chunk.stem] <= MOST_LOSSES
            return Message(worker, ENDED, WorkerEnd(text, short, is_excused=is_accident))
        if kind == DONE and isinstance(content, Records):
            content.records["node"] = np.full(len(content.records["id"]), worker.node, object)
        if kind in FINAL:
            worker.chunk = worker.said = None
        return Message(worker, kind, content)

    def _waits_for_nodes(self) -> Iterator[Message]:
        """Say once in a while without workers that they wait."""
        if any(worker.node for worker in self._workers):
            self._is_told = False
        elif not self._is_told and time.monotonic() - self._alone_since > PATIENCE_SECONDS:
            self._is_told = True
            needs = f"{self._settings.cpus:g} CPUs" + f" and {self._settings.gpus:g} GPUs" * bool(self._settings.gpus)
            text = f"no worker has started: each needs {needs}. Training goes on once the cluster has them."
            yield Message(None, NOTE, text)


def _check_address(address: str) -> None:
    """Raise if nothing listens there: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise _no_cluster(address, "expected host:port")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, reason: str) -> InputError:
    place = Place(f"--ray-address {address}")
    return InputError.at(place, f"there is no Ray cluster: {reason.rstrip('.')}.", "Start one with ray start --head.")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does at a signal: Ray would end it, without a word and a last report."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
