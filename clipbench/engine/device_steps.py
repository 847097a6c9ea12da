"""The steps of a block on a device other than the CPU, without the host in between.

A counter on the device says which slot of the inputs is next. On CUDA, a step is captured as a graph, so that the
host launches one graph a step, and not hundreds of kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Steps before the capture: libraries such as cuBLAS allocate memory at their first calls, which a graph cannot.
WARM_UP = 3


class DeviceSteps:
    """A step whose inputs and results stay in the same memory, taken as often as asked for."""

    def __init__(self, take_step: Callable[[Tensor], None], device: torch.device) -> None:
        """`take_step` gets the number of the slot, [1], on the device."""
        self._take_step, self._device = take_step, device
        self._slot = torch.zeros(1, dtype=torch.long, device=device)
        self._taken = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self.refusal = ""  # why the step is not captured

    def __call__(self, steps: int) -> None:
        """Take the steps of slots 0, 1, ..."""
        self._slot.zero_()
        for _ in range(steps):
            if self._device.type == "cuda" and self._taken == WARM_UP and not self.refusal:
                self._capture()
            self._taken += 1
            if self._graph is None:
                self._next()
            else:
                self._graph.replay()

    def _next(self) -> None:
        with torch.no_grad():
            self._take_step(self._slot)
            self._slot.add_(1)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):  # nothing is computed while it is captured
                self._next()
        except RuntimeError as error:
            self.refusal = f"no CUDA graph: {error}"
        else:
            self._graph = graph
