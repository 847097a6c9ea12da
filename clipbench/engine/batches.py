"""Which examples a seed sees at each step: one permutation per epoch, cut in order into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbench.trial import Training


@dataclass(frozen=True)
class Schedule:
    """How long training lasts, in epochs and steps."""

    examples: int
    batch: int
    epoch_steps: int  # steps of a whole epoch
    steps: int  # of the whole training
    whole: bool  # every step sees all examples in order: there is nothing to draw

    @classmethod
    def of(cls, train: Training, examples: int | None) -> Schedule:
        """`examples` is None for an objective without data: all its steps are one epoch, or each epoch is one."""
        if examples is None:
            epoch_steps = train.epoch_steps or train.steps or 1
            return cls(1, 1, epoch_steps, train.steps or epoch_steps * (train.epochs or 1), whole=True)
        batch = train.batch_size or examples
        epoch_steps = examples // batch if train.drop_last else -(-examples // batch)
        steps = train.steps or epoch_steps * (train.epochs or 1)
        return cls(examples, batch, epoch_steps, steps, whole=train.batch_size is None)

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.epoch_steps)

    def steps_in(self, epoch: int) -> int:
        """Steps of an epoch, counted from 0; the last one may be cut short by `train.steps`."""
        return min(self.epoch_steps, self.steps - epoch * self.epoch_steps)

    def size(self, step_in_epoch: int) -> int:
        """Examples in a batch: the last of an epoch may be smaller."""
        return self.batch if self.whole else min(self.batch, self.examples - step_in_epoch * self.batch)


class Draws:
    """The permutations of the seeds in a chunk. Generators live on the CPU whatever the device."""

    def __init__(self, schedule: Schedule, seeds: Sequence[int], device: torch.device) -> None:
        self._schedule = schedule
        self._device = device
        self._generators = {seed: torch.Generator().manual_seed(seed) for seed in seeds}
        self._seeds = [seeds[0]] if len(self._generators) == 1 else list(seeds)

    def epoch(self) -> list[Tensor]:
        """For each batch of the next epoch, the examples of all seeds, one seed after another."""
        examples = self._schedule.examples
        orders = {seed: torch.randperm(examples, generator=g) for seed, g in self._generators.items()}
        rows = torch.stack([orders[seed] for seed in self._seeds]).to(self._device)
        cuts = torch.split(rows, self._schedule.batch, dim=1)[: self._schedule.epoch_steps]
        return [cut.reshape(-1) for cut in cuts]
