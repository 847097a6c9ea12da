"""Why a worker process has ended, in words."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from clipbench.errors import ClipbenchError
from clipbench.execution import process_output
from clipbench.execution.protocol import OUT_OF_MEMORY, Surroundings
from clipbench.plugins.user_modules import IMPORT_VARIABLE

# How much a failure of one trial counts towards the most for which chunks are halved: a step that hangs takes as long
# as its limit.
ONE, OF_HANGING = 1, 16


@dataclass(frozen=True)
class WorkerEnd:
    """Why a worker has ended: in words after `the worker process`, and whether it would end again in the same way."""

    text: str
    is_certain: bool
    counts: int = ONE
    is_excused: bool = False  # through no fault of the trials


class WorkerEndedError(ClipbenchError):
    """A worker has ended before training. `imports` is the module of the user's that it was importing, if any."""

    def __init__(self, text: str, imports: str) -> None:
        super().__init__(f"the worker process that reads the experiment {text}")
        self.text, self.imports = text, imports


def why_ended(process: BaseProcess, surroundings: Surroundings, since: int, attempts: int = 1) -> WorkerEnd:
    """Return why a worker has ended, from its exit code and what it has written after the first `since` bytes.

    As many `attempts` have ended.
    """
    process.join()
    code, memory = process.exitcode or 0, surroundings.memory
    if code == OUT_OF_MEMORY and memory:
        remedy = "Fewer workers get more each: --workers 1."
        return WorkerEnd(f"used more than its part of the memory, {memory / 1e9:.3g} GB. {remedy}", True)
    if place := process_output.where_it_hung(surroundings.log, since):
        limit = f"for an import than {IMPORT_VARIABLE}" if place.imports else "for a step than train.timeout_per_step"
        text = f"took longer {limit}, in {place.text}. It hangs, or the limit is too short."
        return WorkerEnd(text, True, OF_HANGING)
    how = f"was killed by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"
    if attempts > 1:
        how += f", {attempts} times"
    return WorkerEnd(f"{how}. {process_output.last_lines(surroundings.log, since)}", False)


def _signal(number: int) -> str:
    if number == signal.SIGKILL:
        return "SIGKILL, which the system sends where memory is short"
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
