"""Trains lanes that nothing clips, and keeps what rules would have looked at: what a pilot is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from clipbench import datasets
from clipbench.core.trial import Trial
from clipbench.engine.clipping.lane_runs import at_units
from clipbench.engine.cohort_training import Cohort, Outcome, Progress, order
from clipbench.engine.gradients.cache import FEWEST_LANES
from clipbench.engine.gradients.workspace import Shape, Workspace
from clipbench.engine.model.stacked import Blocks
from clipbench.pilot.recorded import Arrays, Watched

# Of each lane as many numbers of a kind at most: where there would be more, steps are left out, then elements.
MOST_NUMBERS = 2**18
MOST_STEPS = 2048


def watch(trials: Sequence[Trial], device: str, lanes: int, progress: Progress) -> list[Watched]:
    """What an executor calls for a chunk, as it calls `train`."""
    chosen = order(trials)
    padded = chosen + [chosen[-1]] * (max(lanes, FEWEST_LANES) - len(chosen))
    workspace = Workspace(Shape.of(padded, device), datasets.load(chosen[0].data) if chosen[0].data else None)
    watcher = Watcher(padded, workspace)
    outcome = watcher.run(progress)
    return [watcher.watched(outcome, lane) for lane in range(len(chosen))]


class Watcher(Cohort):
    """A cohort that keeps, of one step in so many, the norms of all places and some of the elements."""

    def __init__(self, trials: Sequence[Trial], workspace: Workspace) -> None:
        super().__init__(trials, workspace)
        grads = workspace.grads
        self._units = _units(grads)
        self._weights = _units(workspace.params)
        units = sum(unit.shape[1] for unit in self._units.values())
        self.every = math.ceil(self.schedule.steps / min(MOST_STEPS, max(MOST_NUMBERS // units, 16)))
        kept = math.ceil(self.schedule.steps / self.every)
        count = min(grads.size, max(MOST_NUMBERS // kept, 16))
        draw = np.random.default_rng(0)  # the same elements at every step, of every lane
        self._chosen = torch.from_numpy(np.sort(draw.choice(grads.size, count, replace=False))).to(workspace.device)
        self._kept: list[dict[str, np.ndarray]] = []

    def _one_step(self, size: int) -> None:
        if self.step % self.every:
            super()._one_step(size)
            return
        before = self._look("w", self._weights) | {"old": self._picked(self.work.params)}
        super()._one_step(size)
        seen = before | self._look("v", self._weights) | {"new": self._picked(self.work.params)}
        seen |= self._look("n", self._units) | self._look("m", self._units, math.inf)
        seen |= {"g": self._picked(self.work.grads), "row_mean": self._row_means()}
        self._kept.append({name: value.cpu().numpy().astype(np.float64) for name, value in seen.items()})

    def watched(self, outcome: Outcome, lane: int) -> Watched:
        """What was seen of one lane, while it was finite."""
        diverged = int(outcome.diverged_step[lane])
        steps = diverged - 1 if diverged else len(outcome.steps)
        kept = self._kept[: math.ceil(steps / self.every)]
        table = {name: np.array([seen[name][lane] for seen in kept]) for name in self._kept[0]}
        table = {name: array.reshape(len(kept), self._kept[0][name].shape[1]) for name, array in table.items()}
        places = {place: {kind: table[f"{place}.{kind}"] for kind in "nmwv"} for place in ("model", "tensor", "unit")}
        elements = {name: table[name] for name in ("g", "row_mean", "old", "new")}
        sizes = _sizes(self._units)
        names, parameters = tuple(self._units), self.work.grads.size
        return Watched(
            self.trials[lane], steps, self.every, diverged or None, places, sizes, elements, parameters, names
        )

    def _look(self, kind: str, units: Mapping[str, Tensor], p: float = 2.0) -> dict[str, Tensor]:
        """Norms of the whole model, of tensors and of units, all in float64: [lanes, places]."""
        norms = at_units({name: unit.double() for name, unit in units.items()}, p)
        widths = [unit.shape[1] for unit in units.values()]
        tensors = torch.stack([torch.linalg.vector_norm(n, p, dim=1) for n in torch.split(norms, widths, dim=1)], dim=1)
        whole = torch.linalg.vector_norm(tensors, p, dim=1, keepdim=True)
        return {f"model.{kind}": whole, f"tensor.{kind}": tensors, f"unit.{kind}": norms}

    def _picked(self, blocks: Blocks) -> Tensor:
        flat = torch.cat([block.view(blocks.lanes, -1) for block in blocks.values()], dim=1)
        return flat.index_select(1, self._chosen)

    def _row_means(self) -> Tensor:
        """Of each chosen element the mean of its row or filter; 0 where a tensor has no rows."""
        means = [
            unit.mean(2, keepdim=True).expand_as(unit) if self.work.grads[name].dim() > 2 else torch.zeros_like(unit)
            for name, unit in self._units.items()
        ]
        return torch.cat([mean.flatten(1) for mean in means], dim=1).index_select(1, self._chosen)


def _units(blocks: Blocks) -> dict[str, Tensor]:
    """Each tensor as [lanes, units, elements]; a unit is a row of a matrix, a filter or a whole bias."""
    return {
        name: block.view(blocks.lanes, block.shape[1] if block.dim() > 2 else 1, -1) for name, block in blocks.items()
    }


def _sizes(units: Mapping[str, Tensor]) -> Arrays:
    tensors = np.array([unit.shape[1] * unit.shape[2] for unit in units.values()])
    each = np.concatenate([np.full(unit.shape[1], unit.shape[2]) for unit in units.values()])
    return {"model": tensors.sum(keepdims=True), "tensor": tensors, "unit": each}
