"""Gradients of which each process has a part: DTensors, as `torch.distributed.fsdp.fully_shard` makes them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from clipbench.clipper.list_layout import sizes_of_places
from clipbench.engine.clipping import places
from clipbench.engine.clipping.measured import Measured
from clipbench.engine.clipping.places import Tensors
from clipbench.errors import Unsupported


class Block(NamedTuple):
    """The part of a tensor that this process has."""

    shape: torch.Size  # of the whole tensor
    local: torch.Size
    offset: tuple[int, ...]  # of the part in the whole
    counts: bool  # False where another process has the same part, and counts it

    def span(self, per: str) -> tuple[int, int]:
        """Return the first of the places that the part has elements of, and their number."""
        dim = {"unit": 0, "column": 1}.get(per)
        if dim is None or len(self.shape) < 2:
            return 0, 1
        return self.offset[dim], self.local[dim]


class ShardLayout:
    """Where the parts of tensors lie that processes share; nothing here depends on a step."""

    def __init__(self, shapes: Mapping[str, torch.Size], parameters: Mapping[str, Tensor], like: Tensor) -> None:
        """`parameters` may be more than those of the shapes."""
        self.shapes, self.like = shapes, like
        meshes = list(dict.fromkeys(p.device_mesh for p in parameters.values() if isinstance(p, DTensor)))
        if len(meshes) > 1:
            text = f"the parameters are distributed over {len(meshes)} meshes."
            raise Unsupported(text, "Make a Clipper for those of each mesh, with a norm of their own.")
        self.mesh = meshes[0]
        self.blocks = {name: self._block(name, parameters[name]) for name in shapes}
        self.splits_rows = any(
            len(block.shape) > 1 and block.local[1:] != block.shape[1:] for block in self.blocks.values()
        )

    def _block(self, name: str, tensor: Tensor) -> Block:
        mesh, first = self.mesh, (0,) * tensor.dim()
        placements = tensor.placements if isinstance(tensor, DTensor) else (Replicate(),) * mesh.ndim
        if not all(type(each) in (Shard, Replicate) for each in placements):
            text = f"{name} is distributed as {placements}, which cannot be clipped."
            raise Unsupported(text, "Distribute it by Shard or Replicate.")
        # Of equal parts, the first process along each dimension of the mesh counts its own.
        position = mesh.get_coordinate() or [0] * mesh.ndim
        counts = all(isinstance(each, Shard) or at == 0 for each, at in zip(placements, position, strict=True))
        if not isinstance(tensor, DTensor):
            return Block(tensor.shape, tensor.shape, first, counts)
        local, offset = compute_local_shape_and_global_offset(tensor.shape, mesh, placements)
        return Block(tensor.shape, torch.Size(local), tuple(offset), counts)

    def total(self, numbers: Tensor, op: Any = torch.distributed.ReduceOp.SUM) -> Tensor:
        """Return the sum of the numbers of all processes, or their maximum."""
        numbers = numbers.contiguous()
        for dim in range(self.mesh.ndim):
            torch.distributed.all_reduce(numbers, op, group=self.mesh.get_group(dim))
        return numbers


class ShardedGradients(Measured):
    """The gradients of a step. Norms are those of whole tensors, the same in every process; parts are changed in place.

    Every process must ask for the same in the same order.
    """

    def __init__(self, layout: ShardLayout, gradients: Mapping[str, Tensor]) -> None:
        """Where `gradients` lacks a name, there is no gradient, which is the same as zero."""
        self.exact, self._layout = True, layout
        parts = {name: part for name, gradient in gradients.items() if (part := _local(gradient)).numel()}
        # Elements that this process counts come first.
        order = sorted(parts, key=lambda name: not layout.blocks[name].counts)
        self._parts = {name: parts[name] for name in order}
        self._counted = sum(part.numel() for name, part in parts.items() if layout.blocks[name].counts)
        self._known: dict[tuple[str, float], Tensor] = {}

    @cached_property
    def tensors(self) -> Tensors:  # type: ignore[override]
        """The parts that this process has, [1, *shape]."""
        return {name: part.to(self._layout.like.dtype).unsqueeze(0) for name, part in self._parts.items()}

    @property
    def names(self) -> Collection[str]:
        return self._layout.shapes.keys()

    def of(self, names: Sequence[str]) -> Measured:
        return self  # which has no others

    @property
    def size(self) -> int:
        return sum(shape.numel() for shape in self._layout.shapes.values())

    def sizes(self, per: str) -> Tensor:
        return self._layout.like.new_tensor(sizes_of_places(self._layout.shapes, per))

    @cached_property
    def maximum(self) -> Tensor:
        return self.norms("model", math.inf)

    @property
    def elements(self) -> Tensor:
        return super().elements if self._parts else self._layout.like.new_zeros(1, 0)

    @property
    def row_means(self) -> Tensor:
        if self._layout.splits_rows:
            text = "rows of a tensor are distributed over processes, and the mean of a row is not known."
            raise Unsupported(text, "Distribute tensors along their first dimension.")
        return super().row_means if self._parts else self._layout.like.new_zeros(1, 0)

    def norms(self, per: str, p: float) -> Tensor:
        if (per, p) not in self._known:
            found = self._powers(per, p)
            if per == "model":
                found = found.amax(0, keepdim=True) if math.isinf(p) else found.sum(0, keepdim=True)
            op = torch.distributed.ReduceOp.MAX if math.isinf(p) else torch.distributed.ReduceOp.SUM
            total = self._layout.total(found, op)
            self._known[per, p] = (total if math.isinf(p) else total ** (1 / p)).unsqueeze(0)
        return self._known[per, p]

    def _powers(self, per: str, p: float) -> Tensor:
        """Return what this process adds to the p-th power of the norm of each place, or its largest element."""
        per = "tensor" if per == "model" else per
        found = []
        for name, shape in self._layout.shapes.items():
            powers = self._layout.like.new_zeros(len(sizes_of_places({name: shape}, per)))
            block, part = self._layout.blocks[name], self._parts.get(name)
            if part is not None and block.counts:
                start, count = block.span(per)
                row = part.to(powers.dtype).unsqueeze(0)
                norms = torch.cat([places.norm(each, p, True) for each in places.at_places({name: row}, per).values()])
                powers[start : start + count] = norms.view(-1) if math.isinf(p) else norms.view(-1) ** p
            found.append(powers)
        return torch.cat(found)

    def scaled(self, coefficient: Tensor, per: str) -> Tensors:
        """Multiply the parts in place; `coefficient` is [1, places], of whole tensors."""
        position = 0
        for name, shape in self._layout.shapes.items():
            if per != "model":
                whole = coefficient[:, position : position + len(sizes_of_places({name: shape}, per))]
                position += whole.shape[1]
            if (part := self._parts.get(name)) is None:
                continue
            if per != "model":
                start, count = self._layout.blocks[name].span(per)
                mine = whole[:, start : start + count]
            row = part.to(coefficient.dtype).unsqueeze(0)
            part.copy_(places.scaled({name: row}, coefficient if per == "model" else mine, per)[name][0])
        return {}

    def replaced(self, elements: Tensor) -> Tensors:
        """Write all elements that this process has."""
        for name, new in super().replaced(elements).items() if self._parts else ():
            self._parts[name].copy_(new[0])
        return {}

    def merged(self, changed: Tensors) -> Tensors:
        return {}  # they are changed in place

    def norm_of(self, elements: Tensor) -> Tensor:
        return self._layout.total(elements[:, : self._counted].square().sum(1)).sqrt()

    def dot(self, new: Tensor, old: Tensor) -> Tensor:
        return self._layout.total((new * old)[:, : self._counted].sum(1))

    def count_changed(self, new: Tensor, old: Tensor) -> Tensor:
        return self._layout.total((new != old)[:, : self._counted].to(new.dtype).sum(1))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
