"""Where the tensors of a list lie: small ones one after another in a buffer, large ones on their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

# Below this number of elements, calling an operator takes longer than its work, and copying costs nothing.
SMALL = 2**14


class Region(NamedTuple):
    """Places of one size that lie one after another in the buffer."""

    start: int
    places: int
    width: int


class ListLayout:
    """The order of tensors of given shapes, and of their places; nothing here depends on a step."""

    def __init__(
        self, shapes: Mapping[str, torch.Size], like: Tensor, per: str, in_order: bool, elsewhere: Collection[str] = ()
    ) -> None:
        """The buffer has the type of `like`, and also the large tensors that are on another device than `like`.

        Small tensors whose places have the same size lie together. With `in_order`, all elements lie in the buffer in
        the order of the names.
        """
        self.shapes, self.like, self.is_spread = shapes, like, bool(elsewhere)
        numbers = {name: shape.numel() for name, shape in shapes.items()}
        small = [name for name, number in numbers.items() if in_order or number <= SMALL or name in elsewhere]
        self.small = small if in_order else sorted(small, key=lambda name: numbers[name] // self.places(name, per))
        self.large = [name for name in shapes if name not in small]
        self.size = sum(numbers.values())
        self.buffer = like.new_zeros(sum(numbers[name] for name in self.small))
        pieces = torch.split(self.buffer, [numbers[name] for name in self.small]) if self.small else ()
        self.views = {name: piece.view(shapes[name]) for name, piece in zip(self.small, pieces, strict=True)}
        self._sizes: dict[str, Tensor] = {}
        self._regions: dict[str, list[Region]] = {}
        self._order: dict[str, tuple[Tensor, Tensor] | None] = {}

    def places(self, name: str, per: str) -> int:
        """Return the number of places of a tensor: its units, or one."""
        return _units(self.shapes[name]) if per == "unit" else 1

    def sizes(self, per: str) -> Tensor:
        """Return the number of elements of each place, in the order of the names: [places]."""
        if per not in self._sizes:
            self._sizes[per] = self.like.new_tensor(sizes_of_places(self.shapes, per))
        return self._sizes[per]

    def regions(self, per: str) -> list[Region]:
        """Return the places in the buffer, as few blocks of equal ones."""
        if per not in self._regions:
            found, start = [], 0
            widths = [(self.shapes[name].numel() // self.places(name, per), name) for name in self.small]
            for width, names in groupby(widths, key=lambda pair: pair[0]):
                places = sum(self.places(name, per) for _, name in names)
                found.append(Region(start, places, width))
                start += places * width
            self._regions[per] = found
        return self._regions[per]

    def in_order(self, numbers: Tensor, per: str) -> Tensor:
        """Return numbers of places, [1, places], in the order of the names; they are small ones first."""
        order = self._permutation(per)
        return numbers if order is None else numbers.index_select(1, order[0])

    def small_first(self, numbers: Tensor, per: str) -> Tensor:
        """The inverse of `in_order`."""
        order = self._permutation(per)
        return numbers if order is None else numbers.index_select(1, order[1])

    def _permutation(self, per: str) -> tuple[Tensor, Tensor] | None:
        if per not in self._order:
            inside = [*self.small, *self.large]
            starts, position = dict[str, int](), 0
            for name in inside:
                starts[name] = position
                position += self.places(name, per)
            order = torch.tensor([starts[n] + unit for n in self.shapes for unit in range(self.places(n, per))])
            given = (order.to(self.like.device), order.argsort().to(self.like.device))
            self._order[per] = None if inside == list(self.shapes) else given
        return self._order[per]


def sizes_of_places(shapes: Mapping[str, torch.Size], per: str) -> list[int]:
    """Return the number of elements of each place of tensors of these shapes."""
    if per == "model":
        return [sum(shape.numel() for shape in shapes.values())]
    dim = {"unit": 0, "column": 1}.get(per)
    found = list[int]()
    for shape in shapes.values():
        number = int(shape[dim]) if dim is not None and len(shape) > 1 else 1
        found += [shape.numel() // number] * number
    return found


def _units(shape: Sequence[int]) -> int:
    """Return the number of rows of a matrix, or of filters; a whole tensor is one unit otherwise."""
    return int(shape[0]) if len(shape) > 1 else 1
