"""The statistics of all steps of a chunk, which arrive from the device while the host goes on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clipbench.engine.step import STATISTICS


class StepStatistics:
    """They are in `array`, [steps, statistics, lanes], as far as `wait` was called."""

    def __init__(self, steps: int, lanes: int, dtype: torch.dtype, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        # Only into pinned memory does a GPU copy while the host goes on.
        self._tensor = torch.zeros(steps, STATISTICS, lanes, dtype=dtype, pin_memory=self._on_cuda)
        self.array: np.ndarray = self._tensor.numpy()
        self._arriving: list[tuple[slice, np.ndarray]] = []

    def fetch(self, first: int, rows: Tensor, ended: np.ndarray) -> None:
        """Ask for the statistics of steps from `first` on, counted from 0; lanes that had ended before have none."""
        steps = slice(first, first + len(rows))
        self._tensor[steps].copy_(rows, non_blocking=self._on_cuda)
        self._arriving.append((steps, ended))

    def wait(self) -> None:
        """Wait until all of them have arrived."""
        if self._on_cuda:
            torch.cuda.current_stream().synchronize()
        for steps, ended in self._arriving:
            self.array[steps][:, :, ended] = 0
        self._arriving.clear()
