"""The steps of a block: by compiled programs, on a device without the host, or one operator after another."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from clipbench.compiler.native_program import Run
from clipbench.core.time_limit import TIME_LIMIT
from clipbench.engine.device_steps import DeviceSteps
from clipbench.engine.gradients.workspace import Gradients, Workspace
from clipbench.engine.inputs.batches import BatchSource
from clipbench.engine.lane_group import LaneGroup


class StepRunner:
    """Takes the steps whose inputs were drawn, at least of the lanes that are alive."""

    def __init__(self, workspace: Workspace, groups: Sequence[LaneGroup]) -> None:
        self._workspace, self._groups = workspace, groups
        self._runs: dict[tuple[int, int], Run] = {}

    def __call__(self, size: int, steps: int, alive: Sequence[int], source: BatchSource) -> None:
        """Take some steps, of `size` examples each."""
        workspace, gradients = self._workspace, self._workspace.gradients(size)
        if gradients.native and all(group.native for group in self._groups):
            gradients.clear_empty()
            for number, group in enumerate(self._groups):
                self._run_group(number, group, size, steps, [lane for lane in alive if lane in group.lanes])
            workspace.step += steps
        elif self._needs_no_host(gradients):
            gradients.clear_empty()
            self._device_steps(size)(steps)
            workspace.step += steps
        else:
            for slot in range(steps):
                TIME_LIMIT.renew()
                workspace.step += 1
                gradients(slot, source, alive)
                with torch.inference_mode():  # every operator costs a fifth less without autograd's bookkeeping
                    for group in self._groups:
                        group.step(slot, alive)

    @property
    def notes(self) -> list[str]:
        """Why steps are not taken by the fastest method."""
        return [steps.refusal for steps in self._workspace.device_steps.values() if steps.refusal]

    def _run_group(self, number: int, group: LaneGroup, size: int, steps: int, alive: Sequence[int]) -> None:
        """Take the steps of a group by compiled programs: all steps of one lane, then of the next."""
        if (number, size) not in self._runs:
            programs = [*self._workspace.gradients(size).native, *group.native]
            self._runs[number, size] = Run(programs, self._workspace.seeds.numbers)
        start = time.perf_counter()
        self._runs[number, size](alive, 0, steps)
        group.seconds += time.perf_counter() - start
        group.steps += steps * len(alive)

    def _needs_no_host(self, gradients: Gradients) -> bool:
        """Whether a step can be taken without the host, which is a gain on other devices than the CPU."""
        looped = gradients.path == "looped" or any(group.own for group in self._groups)
        return self._workspace.device.type != "cpu" and not looped

    def _device_steps(self, size: int) -> DeviceSteps:
        """Return the steps for a size; a workspace keeps them with the groups that they belong to."""
        gradients, groups, kept = self._workspace.gradients(size), self._groups, self._workspace.device_steps

        def take_step(slot: Tensor) -> None:
            gradients.step_on_device(slot)
            for group in groups:
                group.step_on_device(slot)

        key = size, *map(id, groups)
        if key not in kept:
            kept[key] = DeviceSteps(take_step, self._workspace.device)
        return kept[key]
