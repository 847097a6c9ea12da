"""Which seed each lane of a chunk has."""

from __future__ import annotations

from collections.abc import Sequence

import torch


class LaneSeeds:
    """The number of each lane's seed among the different seeds of a chunk. Programs keep this object: it changes."""

    def __init__(self, lanes: int, device: torch.device) -> None:
        self.numbers = [0] * lanes
        self.index = torch.zeros(lanes, dtype=torch.long, device=device)  # the same, on the device
        self.different: list[int] = [0]
        self.seeds = [0] * lanes

    def set(self, seeds: Sequence[int]) -> None:
        self.seeds, self.different = list(seeds), list(dict.fromkeys(seeds))
        self.numbers[:] = [self.different.index(seed) for seed in seeds]
        self.index.copy_(torch.tensor(self.numbers))
