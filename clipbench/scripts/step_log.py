"""What a script measures: a row of statistics for each step, and the measures that it hands over."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipbench.engine.lane_status import LaneStatus
from clipbench.engine.step import LOSS, PRE, STATISTICS, WEIGHTS

BLOCK = 1024  # steps of a tensor
CHECK_EVERY = 50  # steps between two looks at losses on a GPU


class StepLog:
    """The loss and the statistics of each step, on the device of the model until they are asked for."""

    def __init__(self, limit: float | None, saved: Mapping[str, Any] | None = None) -> None:
        """`limit` is the largest loss that is no divergence; `saved` is what `state` returned."""
        self.status = LaneStatus(1, limit)
        self._limit = math.inf if limit is None else limit
        self._blocks: list[Tensor] = []
        self._rows = np.zeros((0, STATISTICS), np.float32)
        self._block: Tensor | None = None
        self._filled = 0
        self.pairs: list[str] = []  # of each step: what `attach` called its model
        self._ends: list[float] = []
        if saved:
            self._rows, self.pairs = saved["rows"].numpy(), list(saved["pairs"])
            self.status.checked[0] = len(self._rows)

    def __len__(self) -> int:
        return len(self.pairs)

    def state(self) -> dict[str, Any]:
        return {"rows": torch.from_numpy(self.rows().copy()), "pairs": self.pairs}

    def add(self, loss: Tensor | float, statistics: Tensor, pair: str) -> None:
        """Add a step; nothing waits for a GPU."""
        if self._block is None or self._filled == BLOCK or self._block.device != statistics.device:
            self._close()
            self._block = torch.zeros(BLOCK, STATISTICS, device=statistics.device)
        row = self._block[self._filled]
        row[PRE:WEIGHTS] = statistics
        row[LOSS] = loss.detach() if isinstance(loss, Tensor) else loss
        self._filled += 1
        self.pairs.append(pair)
        self._ends.append(time.perf_counter())

    def is_suspicious(self) -> bool:
        """Whether the last step may have diverged; on a GPU only every so often, since it waits for it."""
        assert self._block is not None
        if self._block.device.type != "cpu":
            return self._filled % CHECK_EVERY == 0
        loss, norm = self._block[self._filled - 1, :2].tolist()
        return not (math.isfinite(loss) and math.isfinite(norm) and loss <= self._limit)

    def mark_weights(self) -> None:
        """Say that the weights after the last step are not finite."""
        rows = self.rows()
        if len(rows):
            rows[-1, WEIGHTS] = math.inf

    def check(self, refuses: bool, is_error: bool, scaled: Collection[str]) -> int:
        """Return the step that has diverged, from 1; 0 if none has.

        Gradients of pairs that are `scaled` may overflow: then a gradient scaler left out the step.
        """
        first = int(self.status.checked[0])
        steps = self.rows()[first:].copy()
        of_scaled = np.array([pair in scaled for pair in self.pairs[first:]], bool)
        steps[of_scaled & ~np.isfinite(steps[:, PRE]), PRE] = 0
        self.status.check_divergence(steps[:, :, np.newaxis], [refuses], [is_error])
        return int(self.status.diverged_step[0])

    def rows(self) -> np.ndarray:
        """Return [steps, statistics]."""
        self._close()
        if self._blocks:
            self._rows = np.concatenate([self._rows, *(block.cpu().numpy() for block in self._blocks)])
            self._blocks = []
        return self._rows

    def step_seconds(self) -> float:
        """Return the median time from the end of a step to that of the next."""
        return float(np.median(np.diff(self._ends))) if len(self._ends) > 1 else math.nan

    def _close(self) -> None:
        if self._block is not None and self._filled:
            self._blocks.append(self._block[: self._filled].clone())
        self._block, self._filled = None, 0


def plain_measures(measures: Any, where: str) -> dict[str, float]:
    """Return the measures that a script hands over as numbers; raise ValueError for what is none."""
    if not isinstance(measures, Mapping):
        raise TypeError(f'{where}: expected a mapping such as {{"val/loss": 0.5}}, got {type(measures).__name__}')
    found = {}
    for name, value in measures.items():
        part, _, measure = str(name).partition("/")
        if part not in ("val", "test", "train") or not measure:
            raise ValueError(f"{where}: a measure is named as val/loss or test/accuracy, got {name!r}")
        try:
            found[str(name)] = float(value.detach() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{where}: {name} must be a number, got {type(value).__name__}") from None
    return found
