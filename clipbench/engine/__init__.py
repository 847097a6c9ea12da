"""Trains trials: many at once as one tensor program where the model allows it, one after another where not.

Shape letters: K lanes, B batch, T steps. A chunk is the lanes that are trained together; what a trial becomes does
not depend on which others share its chunk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from clipbench.core.records import Records
from clipbench.core.trial import Trial
from clipbench.engine import tabulate
from clipbench.engine.cohort_training import Cohort, Progress, order
from clipbench.engine.cohort_training import train as train_chunk
from clipbench.engine.gradients.cache import FEWEST_LANES, Shelf
from clipbench.engine.gradients.workspace import Shape
from clipbench.engine.pruning import Ask

# On some CPUs, MKL chooses the kernel of a batched matrix product by the number of matrices, and so rounds one lane
# differently among 3 lanes than among 16. In this mode it does not. It reads the variable at its first call; a batched
# product takes the same time either way.
os.environ.setdefault("MKL_CBWR", "AUTO")

TIMING_SECONDS = 0.5
SHELF = Shelf()


def train(
    trials: Sequence[Trial],
    device: str = "cpu",
    lanes: int = 0,
    progress: Progress = lambda done: None,
    ask: Ask | None = None,
) -> Records:
    """Train one chunk: trials that differ in arm, seed and optimizer only, and whose arms share a scope.

    `lanes` pads it to a size that recurs. `ask` is told how trials are doing at the end of every epoch but the last,
    and says which of them are to be pruned: those stop there.
    """
    chosen = order(trials)
    padded = chosen + [chosen[-1]] * (max(lanes, FEWEST_LANES) - len(chosen))
    workspace = SHELF.workspace(Shape.of(padded, device))
    outcome = train_chunk(padded, workspace, progress, ask, SHELF)
    about = {"engine": workspace.path, "engine_note": workspace.loop_reason or None, "device": device}
    return tabulate.tabulate(outcome, len(chosen), about)


def seconds_per_lane_step(trials: Sequence[Trial], device: str, lanes: int) -> float:
    """What one step of one lane takes, from a short training that is thrown away."""
    chosen = order(trials)
    padded = chosen + [chosen[-1]] * (max(lanes, FEWEST_LANES) - len(chosen))
    workspace = SHELF.workspace(Shape.of(padded, device))
    if workspace.loop_reason:  # one lane after another: two say as much as all
        padded = padded[:FEWEST_LANES]
        workspace = SHELF.workspace(Shape.of(padded, device))
    return Cohort(padded, workspace).seconds_per_step(TIMING_SECONDS) / len(padded)
