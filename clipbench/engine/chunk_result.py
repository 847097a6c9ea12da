"""The result of training a chunk: what its steps, epochs and final evaluation measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clipbench.core.trial import Trial
from clipbench.engine.inputs.batches import TrainingLength
from clipbench.engine.lane_status import LaneStatus


@dataclass
class ChunkResult:
    """The result of training a chunk; lanes are in the order of `trials`."""

    trials: Sequence[Trial]
    length: TrainingLength
    fresh: bool  # no example is seen twice, except by chance: the data are a stream, or examples are mixed
    steps: np.ndarray  # [steps, statistics, lanes]
    epochs: dict[str, np.ndarray]  # [epochs, lanes]
    finals: dict[str, np.ndarray]  # part -> [measures, lanes]
    membership: np.ndarray  # [lanes], advantage of a membership inference attack
    weights: dict[str, np.ndarray]  # final weights, [lanes, *shape] of each tensor
    status: LaneStatus
    rule_seconds: list[float]  # what a step of each lane takes more or less than that of the others
    seconds: float

    @cached_property
    def step_seconds(self) -> float:
        """The mean time of a step of a lane."""
        return self.seconds / sum(self.last_step(lane) for lane in range(len(self.trials)))

    def last_step(self, lane: int) -> int:
        """Return the last step that counts, from 1."""
        status = self.status
        ended = int(status.stopped_epoch[lane] or status.pruned_epoch[lane]) * self.length.epoch_steps
        return int(status.diverged_step[lane]) or ended or len(self.steps)
