"""The training of a pilot: lanes without clipping, of which the statistics that rules use are recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from clipbench import datasets
from clipbench.core.trial import Trial
from clipbench.engine.chunk_result import ChunkResult
from clipbench.engine.chunk_training import ChunkTraining, Progress
from clipbench.engine.clipping.lane_order import padded
from clipbench.engine.clipping.places import at_places
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.pilot.results import Arrays, GradientStatistics

# The most numbers of a kind recorded for each lane: to stay below it, steps are skipped, then elements.
MOST_NUMBERS = 2**18
MOST_STEPS = 2048


def record_chunk(
    trials: Sequence[Trial], device: str, lanes: int, loop_reason: str, progress: Progress
) -> list[GradientStatistics]:
    """Train a chunk and return its statistics; an executor calls it in place of `clipbench.engine.train`."""
    chunk, data = padded(trials, lanes), trials[0].data
    shape = WorkspaceShape.of(chunk, device, loop_reason)
    workspace = Workspace(shape, datasets.load(data) if data else None, slots=1)
    training = PilotTraining(chunk, workspace)
    result = training.run(progress)
    return [training.statistics(result, lane) for lane in range(len(trials))]


class PilotTraining(ChunkTraining):
    """A training that records at regular steps the norms of all places and a sample of the elements."""

    def __init__(self, trials: Sequence[Trial], workspace: Workspace) -> None:
        super().__init__(trials, workspace)
        grads = {name: g[:, 0] for name, g in workspace.grads.items()}  # a pilot clips nothing, so no parts either
        self._grads, size = grads, workspace.params.size
        self._units = at_places(grads, "unit")
        self._weights = at_places(workspace.params, "unit")
        units = sum(unit.shape[1] for unit in self._units.values())
        self.every = math.ceil(self.length.steps / min(MOST_STEPS, max(MOST_NUMBERS // units, 16)))
        recorded = math.ceil(self.length.steps / self.every)
        count = min(size, max(MOST_NUMBERS // recorded, 16))
        draw = np.random.default_rng(0)  # the same elements at every step and for every lane
        self._sample = torch.from_numpy(np.sort(draw.choice(size, count, replace=False))).to(workspace.device)
        self._recorded: list[dict[str, np.ndarray]] = []

    def _take_steps(self, size: int, steps: int, alive: Sequence[int]) -> None:
        if self.step % self.every:
            super()._take_steps(size, steps, alive)
            return
        before = self._norms("w", self._weights) | {"old": self._sampled(self.workspace.params)}
        super()._take_steps(size, steps, alive)
        seen = before | self._norms("v", self._weights) | {"new": self._sampled(self.workspace.params)}
        seen |= self._norms("n", self._units) | self._norms("m", self._units, math.inf)
        seen |= {"g": self._sampled(self._grads), "row_mean": self._row_means()}
        self._recorded.append({name: value.cpu().numpy().astype(np.float64) for name, value in seen.items()})

    def statistics(self, result: ChunkResult, lane: int) -> GradientStatistics:
        """Return the statistics of one lane before it diverged."""
        diverged = int(result.status.diverged_step[lane])
        steps = diverged - 1 if diverged else len(result.steps)
        steps_of_lane = self._recorded[: math.ceil(steps / self.every)]
        table = {
            name: np.array([step[name][lane] for step in steps_of_lane]).reshape(-1, array.shape[1])
            for name, array in self._recorded[0].items()
        }
        places = {place: {kind: table[f"{place}.{kind}"] for kind in "nmwv"} for place in ("model", "tensor", "unit")}
        elements = {name: table[name] for name in ("g", "row_mean", "old", "new")}
        sizes = _sizes(self._units)
        names, parameters = tuple(self._units), self.workspace.params.size
        return GradientStatistics(
            places, sizes, elements, self.trials[lane], steps, self.every, diverged or None, parameters, names
        )

    def _norms(self, kind: str, units: Mapping[str, Tensor], p: float = 2.0) -> dict[str, Tensor]:
        """Return the norms of the whole model, of tensors and of units, in float64: [lanes, places]."""
        precise = [unit if unit.device.type == "mps" else unit.double() for unit in units.values()]  # it has no float64
        norms = torch.cat([torch.linalg.vector_norm(unit, p, dim=2) for unit in precise], dim=1)
        widths = [unit.shape[1] for unit in units.values()]
        tensors = torch.stack([torch.linalg.vector_norm(n, p, dim=1) for n in torch.split(norms, widths, dim=1)], dim=1)
        whole = torch.linalg.vector_norm(tensors, p, dim=1, keepdim=True)
        return {f"model.{kind}": whole, f"tensor.{kind}": tensors, f"unit.{kind}": norms}

    def _sampled(self, blocks: Mapping[str, Tensor]) -> Tensor:
        flat = torch.cat([block.flatten(1) for block in blocks.values()], dim=1)
        return flat.index_select(1, self._sample)

    def _row_means(self) -> Tensor:
        """Return for each sampled element the mean of its row or filter; 0 where a tensor has no rows."""
        means = [
            unit.mean(2, keepdim=True).expand_as(unit) if self._grads[name].dim() > 2 else torch.zeros_like(unit)
            for name, unit in self._units.items()
        ]
        return torch.cat([mean.flatten(1) for mean in means], dim=1).index_select(1, self._sample)


def _sizes(units: Mapping[str, Tensor]) -> Arrays:
    tensors = np.array([unit.shape[1] * unit.shape[2] for unit in units.values()])
    each = np.concatenate([np.full(unit.shape[1], unit.shape[2]) for unit in units.values()])
    return {"model": tensors.sum(keepdims=True), "tensor": tensors, "unit": each}
