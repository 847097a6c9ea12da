"""Training of trials: many at once as one tensor program where the model allows it, one after another otherwise.

Shape letters: K lanes, B batch, T steps. A lane is one trial in training; a chunk is the lanes that are trained
together. The result of a trial does not depend on the other trials of its chunk.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from clipbench.compiler.library import NoLibrary, library
from clipbench.core.records import Records
from clipbench.core.trial import Trial
from clipbench.engine import tabulate
from clipbench.engine.checkpoint import Checkpoint
from clipbench.engine.chunk_training import ChunkTraining, Progress
from clipbench.engine.clipping.lane_order import FEWEST_LANES, padded
from clipbench.engine.gradients.workspace import WorkspaceShape
from clipbench.engine.gradients.workspace_cache import WorkspaceCache
from clipbench.engine.model.network import DTYPES
from clipbench.engine.pruning import ChoosePruned

# On some CPUs, MKL chooses the kernel of a batched matrix product by the number of matrices, and so rounds one lane
# differently among 3 lanes than among 16. In this mode it does not. It reads the variable at its first call; a batched
# product takes the same time either way.
os.environ.setdefault("MKL_CBWR", "AUTO")

TIMING_SECONDS = 0.5
WORKSPACES = WorkspaceCache()


def train(
    trials: Sequence[Trial],
    device: str = "cpu",
    lanes: int = 0,
    loop_reason: str = "",
    progress: Progress = lambda done: None,
    choose_pruned: ChoosePruned | None = None,
    checkpoint: str = "",
) -> Records:
    """Train one chunk: trials that differ only in arm, seed and optimizer, and whose arms share a scope.

    The chunk is padded to `lanes` lanes, so that few different sizes occur. With a `loop_reason`, its lanes are trained
    one after another, though the model may allow more. `choose_pruned` gets the measures of all
    trials at the end of every epoch but the last, and returns the ids of the trials to prune; those stop there. The
    state is kept in the file `checkpoint` now and then, from which an interrupted training goes on.
    """
    chunk = padded(trials, lanes)
    workspace = WORKSPACES(WorkspaceShape.of(chunk, device, loop_reason))
    training = ChunkTraining(chunk, workspace)
    kept = Checkpoint(Path(checkpoint) if checkpoint else None, f"{workspace.path} on {device}")
    result = training.run(progress, choose_pruned, kept)
    about = {"engine": workspace.path, "engine_note": training.note or None, "device": device}
    return tabulate.tabulate(result, len(trials), about)


def seconds_per_lane_step(trials: Sequence[Trial], device: str, lanes: int, loop_reason: str = "") -> float:
    """Return the time of one step of one lane, measured in a short training whose result is discarded."""
    return _timed(trials, device, lanes, loop_reason)[1]


def seconds_by_path(
    trials: Sequence[Trial], device: str, lanes: int, loop_reason: str, progress: Progress
) -> tuple[str, float, float]:
    """Return how lanes are trained together, and the time of a step of one lane then and one after another."""
    return *_timed(trials, device, lanes, loop_reason), _timed(trials[:1], device, 0, "to time it")[1]


def _timed(trials: Sequence[Trial], device: str, lanes: int, loop_reason: str) -> tuple[str, float]:
    chunk = padded(trials, lanes)
    workspace = WORKSPACES(WorkspaceShape.of(chunk, device, loop_reason))
    if workspace.loop_reason:  # the fewest lanes are enough
        chunk = chunk[:FEWEST_LANES]
        workspace = WORKSPACES(WorkspaceShape.of(chunk, device, loop_reason))
    seconds = ChunkTraining(chunk, workspace).seconds_per_step(TIMING_SECONDS) / len(chunk)
    path = workspace.path
    del workspace
    WORKSPACES.shrink(device)  # another one of a large model may not fit beside it
    return path, seconds


def release_memory() -> None:
    """Give back the memory that later chunks of the same shape would have used."""
    WORKSPACES.clear()
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def has_kernels(dtype: str) -> bool:
    """Whether there are compiled kernels for a type of real numbers; they are compiled if they were not yet."""
    try:
        return bool(library(DTYPES[dtype]))
    except NoLibrary:
        return False
