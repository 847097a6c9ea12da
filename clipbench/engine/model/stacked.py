"""Stacked tensors: one storage, in which each tensor of the model has a contiguous block over all lanes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class StackedTensors(Mapping[str, Tensor]):
    """A tensor [lanes, *shape] for each name, all of them views of `storage`.

    Each tensor has a block over all lanes, not each lane a row over all tensors: matrix products need contiguous
    blocks, and elementwise operations that are the same for all lanes can run over the whole storage at once.
    """

    def __init__(self, like: Mapping[str, Tensor], lanes: int, dtype: torch.dtype, device: torch.device) -> None:
        self.lanes = lanes
        self.sizes = {name: tensor.numel() for name, tensor in like.items()}
        self.storage = torch.zeros(lanes * sum(self.sizes.values()), dtype=dtype, device=device)
        blocks = torch.split(self.storage, [lanes * size for size in self.sizes.values()])
        self._blocks = {n: block.view(lanes, *t.shape) for (n, t), block in zip(like.items(), blocks, strict=True)}

    def __getitem__(self, name: str) -> Tensor:
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def size(self) -> int:
        """The number of elements of one lane."""
        return sum(self.sizes.values())

    def set_lane(self, lane: int, tensors: Mapping[str, Tensor]) -> None:
        for name, block in self._blocks.items():
            block[lane].copy_(tensors[name])

    def lane(self, lane: int) -> dict[str, Tensor]:
        return {name: block[lane] for name, block in self._blocks.items()}

    def copy_of(self, lane: int) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.lane(lane).items()}
