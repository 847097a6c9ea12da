"""What a rule asks of tensors at its places, and what it does to them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from clipbench.engine.clipping import places
from clipbench.engine.clipping.places import Tensors


class Measured:
    """Tensors [rows, *shape]: their norms and largest elements, each computed when it is first asked for.

    Nothing here changes the tensors: `scaled` and `replaced` return new ones.
    """

    def __init__(self, tensors: Tensors, exact: bool, whole: Measured | None = None) -> None:
        """`whole` has been measured with more tensors than these."""
        self.tensors, self.exact, self._whole = tensors, exact, whole

    @cached_property
    def norm(self) -> Tensor:
        """The 2-norm of each row: [rows, 1]."""
        return self.norms("model", 2.0)

    @cached_property
    def _norms(self) -> Tensor:
        if self._whole is not None:
            return self._whole.columns(self._whole._norms, self.tensors)
        return places.norms(self.tensors, "tensor", 2.0, self.exact)

    @cached_property
    def _maxima(self) -> Tensor:
        if self._whole is not None:
            return self._whole.columns(self._whole._maxima, self.tensors)
        return places.norms(self.tensors, "tensor", math.inf, self.exact)

    @cached_property
    def maximum(self) -> Tensor:
        """The largest absolute element of each row: [rows, 1]."""
        return self._maxima.amax(1, keepdim=True)

    @property
    def names(self) -> Collection[str]:
        return self.tensors.keys()

    @property
    def elements(self) -> Tensor:
        """All elements in one matrix: [rows, elements]."""
        return places.joined(self.tensors)

    @property
    def row_means(self) -> Tensor:
        """The mean of the row or filter of each element: [rows, elements]."""
        return places.row_means(self.tensors)

    @property
    def size(self) -> int:
        """The number of elements of a row."""
        return sum(t[0].numel() for t in self.tensors.values())

    def sizes(self, per: str) -> Tensor:
        """Return the number of elements of each place: [places]."""
        return places.sizes(self.tensors, per)

    def norms(self, per: str, p: float) -> Tensor:
        """Return the p-norms of the places: [rows, places]."""
        known = {2.0: "_norms", math.inf: "_maxima"}.get(p)
        if known and per == "tensor":
            found: Tensor = getattr(self, known)
            return found
        if known and per == "model":
            return places.norm(getattr(self, known), p, self.exact, keepdim=True)
        return places.norms(self.tensors, per, p, self.exact)

    def scaled(self, coefficient: Tensor, per: str) -> Tensors:
        """Return the tensors with every place multiplied by its coefficient, [rows, places]."""
        return places.scaled(self.tensors, coefficient, per)

    def replaced(self, elements: Tensor) -> Tensors:
        """Return the tensors with these elements, [rows, elements]."""
        return places.separated(elements, self.tensors)

    def merged(self, changed: Tensors) -> Tensors:
        """Return all tensors, some of which have been changed."""
        return {name: changed.get(name, t) for name, t in self.tensors.items()}

    def norm_of(self, elements: Tensor) -> Tensor:
        """Return the 2-norm of elements in the order of `elements`: [rows]."""
        return places.norm(elements, 2.0, self.exact)

    def dot(self, new: Tensor, old: Tensor) -> Tensor:
        """Return the product of two vectors in the order of `elements`: [rows]."""
        return (new * old).sum(1)

    def count_changed(self, new: Tensor, old: Tensor) -> Tensor:
        """Return how many elements differ, in the order of `elements`: [rows]."""
        return (new != old).to(new.dtype).sum(1)

    def of(self, names: Sequence[str]) -> Measured:
        """Return the same of some of the tensors."""
        return (
            self if len(names) == len(self.tensors) else Measured(places.chosen(self.tensors, names), self.exact, self)
        )

    def rest(self, names: Collection[str]) -> Tensor:
        """Return the 2-norm of the other tensors: [rows]."""
        others = [name for name in self.tensors if name not in names]
        return places.norm(self.columns(self._norms, others), 2.0, self.exact)

    def columns(self, numbers: Tensor, names: Iterable[str]) -> Tensor:
        """Return those of numbers [rows, tensors] that belong to these tensors."""
        known = list(self.tensors)
        return torch.stack([numbers[:, known.index(name)] for name in names], 1)
