"""Stacked tensors: one storage, in which each tensor of the model has a contiguous block over all lanes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor


class Blocks(Mapping[str, Tensor]):
    """A tensor [lanes, *shape] for each name, all of them parts of `storage`.

    Blocks and not rows: matrix products want each tensor's block contiguous, and elementwise work that is the same
    for all lanes can go over the whole storage at once.
    """

    def __init__(self, like: Mapping[str, Tensor], lanes: int, dtype: torch.dtype, device: torch.device) -> None:
        self.lanes = lanes
        self.sizes = {name: tensor.numel() for name, tensor in like.items()}
        self.storage = torch.zeros(lanes * sum(self.sizes.values()), dtype=dtype, device=device)
        self._blocks: dict[str, Tensor] = {}
        start = 0
        for name, tensor in like.items():
            stop = start + lanes * tensor.numel()
            self._blocks[name] = self.storage[start:stop].view(lanes, *tensor.shape)
            start = stop

    def __getitem__(self, name: str) -> Tensor:
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def size(self) -> int:
        """Elements of one lane."""
        return sum(self.sizes.values())

    def set_lane(self, lane: int, tensors: Mapping[str, Tensor]) -> None:
        for name, block in self._blocks.items():
            block[lane].copy_(tensors[name])

    def lane(self, lane: int) -> dict[str, Tensor]:
        return {name: block[lane] for name, block in self._blocks.items()}


def lane_norms(tensors: Iterable[Tensor], p: float = 2.0) -> Tensor:
    """The p-norm of each lane over several tensors [lanes, elements]: the norm of their norms."""
    norms = torch.stack([torch.linalg.vector_norm(tensor, p, dim=1) for tensor in tensors])
    total: Tensor = torch.linalg.vector_norm(norms, p, dim=0)
    return total
