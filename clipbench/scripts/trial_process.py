"""The process of one trial of a script: it calls the function, and sends the records or why there are none."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import current_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipbench.config.component_options import SCRIPT
from clipbench.core.records import Records
from clipbench.core.trial import Component, Trial
from clipbench.errors import ClipbenchError, first_sentence
from clipbench.execution import process_limits
from clipbench.execution.process_limits import MemoryLimit, memory_in_use
from clipbench.execution.protocol import DONE, EPOCH_END, FAILED, PROGRESS, SPEAKER
from clipbench.plugins import registry
from clipbench.plugins.imported_files import is_installed
from clipbench.plugins.registry import Plugin
from clipbench.scripts import own_clipping
from clipbench.scripts.attached_pair import ScriptError
from clipbench.scripts.saved_state import SavedState
from clipbench.scripts.script_clip import Diverged, ScriptClip, measures_at_end
from clipbench.scripts.script_records import records_of

PROGRESS_SECONDS = 0.2  # between two messages of progress


@dataclass(frozen=True)
class TrialTask:
    """What the process of a trial is told."""

    trial: Trial
    device: str
    place: int  # of the worker: processes of different places use different GPUs
    log: Path  # file of what the script prints
    saved: Path  # file of what it saves
    is_judged: bool  # whether a search may prune it at each report


def run_trial(connection: Connection, *given: Any) -> None:
    """Train a trial, given the fields of its `TrialTask`, and send its records; the process ends afterwards."""
    task = TrialTask(*given)
    messages = _Messages(connection)
    process = os.getpid()
    _prepare(task, messages)
    result: tuple[str, Any]
    try:
        result = DONE, _train(task, messages)
    except SystemExit as ended:
        code = "" if ended.code is None else ended.code
        result = FAILED, f"{_place(ended)}main called exit({code}). Return the measures instead."
    except BaseException as error:  # noqa: BLE001 - a script may fail in any way
        traceback.print_exc()
        result = FAILED, _described(error)
    sys.stdout.flush()
    if os.getpid() != process:  # a child that the script has forked came here too
        os._exit(1)
    messages.send(*result)


class _Messages:
    """Sends messages to the parent process, from several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()
        self._pending, self._sent = 0, time.monotonic()

    def send(self, kind: str, content: Any) -> None:
        try:
            with self._lock:
                self._connection.send((kind, content))
        except OSError:  # the parent has closed the connection
            os._exit(1)

    def progress(self, steps: int) -> None:
        self._pending += steps
        if time.monotonic() - self._sent > PROGRESS_SECONDS:
            self.send(PROGRESS, self._pending)
            self._pending, self._sent = 0, time.monotonic()

    def judged(self, report: int, measured: Mapping[str, float]) -> bool:
        """Send a report, and wait until it is known whether the trial is pruned."""
        self.send(EPOCH_END, (report, dict(measured)))
        try:
            return bool(self._connection.recv())
        except (EOFError, OSError):
            os._exit(1)


def _prepare(task: TrialTask, messages: _Messages) -> None:
    """Give the script a group of processes, a file for what it prints, and its limits."""
    if hasattr(os, "setsid"):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    current_process().daemon = False  # data loaders have processes of their own
    task.log.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    script = task.trial.script
    assert script is not None
    options = ", ".join(f"{name} {value}" for name, value in script.options)
    about = ", ".join(filter(None, (task.trial.arm, f"seed {task.trial.seed}", options)))
    print(f"{SPEAKER}: {about}, {time.strftime('%Y-%m-%d %H:%M:%S')}")
    if task.device == "cuda":  # before the first call of CUDA, which reads the variable once
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        cards = [card for card in visible.split(",") if card] or [str(n) for n in range(torch.cuda.device_count())]
        os.environ["CUDA_VISIBLE_DEVICES"] = cards[task.place % len(cards)]
    own_clipping.guard()
    os.environ.pop("MLFLOW_RUN_ID", None)  # a run of the caller's, which a script would take for its own
    torch.set_num_threads(int(script.as_dict().get("threads", 1)))  # type: ignore[arg-type]
    for generators in (torch.seed, np.random.seed, random.seed):  # this process is a copy of another one
        generators()
    limit: Any = dict(script.aside).get("memory")
    process_limits.watch(MemoryLimit(limit), lambda: _end_for_memory(limit, messages), _end)


def _train(task: TrialTask, messages: _Messages) -> Records:
    trial, script = task.trial, task.trial.script
    assert script is not None
    plugin = registry.of("script", script)
    judge = messages.judged if task.is_judged else None
    clip = ScriptClip(trial, task.device, SavedState(task.saved), judge, messages.progress)
    finals: Mapping[str, float] = {}
    try:
        returned = plugin.function(**_arguments(script, plugin, clip))
        if not len(clip.log):
            raise ScriptError("main has trained no step. Call clip.step(loss) after each loss.backward().")
        finals = {} if clip.pruned else measures_at_end(returned)
        clip.finish()
    except Diverged:
        pass
    return records_of(clip, finals)


def _arguments(script: Component, plugin: Plugin, clip: ScriptClip) -> dict[str, Any]:
    """Return the options of the script, and what clipbench passes."""
    given = {name: value for name, value in {"clip": clip, "seed": clip.seed}.items() if name in plugin.given}
    options = dict(script.options) | dict(script.left_out)
    of_trials = {spec.name for spec in SCRIPT} - plugin.options.keys()
    return given | {name: _listed(value) for name, value in options.items() if name not in of_trials}


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _described(error: BaseException) -> str:
    """Return an error, after the line of the script that it comes from."""
    text = str(error) if isinstance(error, ClipbenchError) else f"{type(error).__name__}: {first_sentence(error)}"
    return f"{_place(error)}{text.rstrip('.')}."


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not is_installed(Path(frame.filename)) and "<" not in frame.filename]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}: " if own else ""


def _end_for_memory(limit: int, messages: _Messages) -> None:
    text = f"main takes {memory_in_use() / 1e9:.3g} GB, more than train.memory, {limit / 1e9:.3g} GB."
    print(f"{SPEAKER}: {text}", file=sys.stderr, flush=True)
    messages.send(FAILED, text)
    _end()


def _end() -> None:
    """End this process, and those that it has started."""
    os.killpg(0, signal.SIGKILL)
