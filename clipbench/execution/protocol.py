"""What a parent process and its workers exchange: tasks, progress, and what is measured at the end of an epoch.

A task is `(function, arguments, messages, options, surroundings)`. The function is named by
`"package.module:function"`, so that the parent process does not import torch. It is called with the arguments, the
options by name, and a callback for each of the messages that the parent wants before the end:
`(PROGRESS, lane-steps since the last message)`, and `(EPOCH_END, (epoch, {trial id: {measure: value}}))`, after which
the worker waits for the ids of the trials to prune. Two need no callback: `(NOTE, text)` is something to show, and
`(IMPORT, name)` says which module of the user's is being imported, or "" when that is done. The last message is
`(DONE, result)` or `(FAILED, error)`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipbench.planning.plan import Chunk

PROGRESS, EPOCH_END, NOTE, IMPORT = "progress", "epoch end", "note", "import"
DONE, FAILED = "done", "failed"
ENDED = "ended"  # of a worker that sends nothing more
FINAL = (DONE, FAILED, ENDED)
OUT_OF_MEMORY = 70  # exit code of a worker that has used more memory than it may
SPEAKER = "clipbench"  # begins the lines in the output of a script that the script has not printed


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a task is given beside its arguments."""

    log: Path  # file of what is printed
    memory: int | None  # bytes that the worker may use; None for no limit


@dataclass(frozen=True, eq=False)
class EpochReport:
    """What is measured of the trials of a chunk at the end of an epoch, counted from 1.

    `measured` has the measures of this epoch, such as `train/loss` and those on the validation data. They are NaN for
    a trial that has diverged, and the last known values for a trial that stopped early. Pruned trials are absent. There
    is no report of the last epoch.
    """

    chunk: Chunk
    epoch: int
    measured: Mapping[str, Mapping[str, float]]  # trial id: measure: value


@dataclass(frozen=True)
class Event:
    """Something that happened to a chunk: progress, its result, or the error that ended it."""

    chunk: Chunk
    lane_steps: int = 0
    records: Any = None  # the result: `Records` of training
    error: str = ""
    note: str = ""  # to show while it goes on


# Returns the ids of the trials to prune, for each report in order. A chunk that is trained again reports its epochs
# again: the function returns the same for the same trial and epoch, or its last answer counts.
ChoosePruned = Callable[[Sequence[EpochReport]], Sequence[Collection[str]]]
