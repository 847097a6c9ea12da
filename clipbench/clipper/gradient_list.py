"""Gradients as the engine's rules see them, measured and changed in place by few operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clipbench.clipper.list_layout import ListLayout
from clipbench.engine.clipping import places
from clipbench.engine.clipping.measured import Measured
from clipbench.engine.clipping.places import Tensors

# Elements of a part of a large tensor: few enough that what is computed of them stays in the cache of a core.
CHUNK = 2**16
CLAMPED = 2**17  # where little is computed


class ElementChunk(NamedTuple):
    """Some of the elements of a list."""

    elements: Tensor  # [1, elements]
    tensors: Sequence[Tensor]  # the same
    write: Callable[[Tensor], None]  # put others, [1, elements], in their place


class GradientList(Measured):
    """The gradients of a step. Unlike those of the engine, they are changed in place.

    Small tensors are copied to a buffer and from it, because there an operator serves all of them.
    """

    def __init__(self, layout: ListLayout, gradients: Mapping[str, Tensor]) -> None:
        """Where `gradients` lacks a name, there is no gradient, which is the same as zero."""
        self.exact = True  # as torch's own norms, which are not scaled first
        self._layout, self._gradients = layout, gradients
        self._known: dict[tuple[str, float], Tensor] = {}
        self._large = [gradients[name] for name in layout.large if name in gradients]
        whole = len(gradients) == len(layout.shapes)
        self._names = layout.small if whole else [name for name in layout.small if name in gradients]
        if self._names:
            self._small = [gradients[name] for name in self._names]
            self._views = list(layout.views.values()) if whole else [layout.views[name] for name in self._names]
            torch._foreach_copy_(self._views, self._small)
        if not whole and len(self._names) < len(layout.small):
            torch._foreach_zero_([view for name, view in layout.views.items() if name not in gradients])

    @cached_property
    def tensors(self) -> Tensors:  # type: ignore[override]
        """Views of the gradients, [1, *shape], small ones first; of these, of their copies."""
        zero = self._layout.buffer.new_zeros(())
        found = {}
        for name in [*self._layout.small, *self._layout.large]:
            if name in self._layout.views:
                found[name] = self._layout.views[name].unsqueeze(0)
            elif name in self._gradients:
                found[name] = self._gradients[name].to(zero.dtype).unsqueeze(0)
            else:
                found[name] = zero.expand(1, *self._layout.shapes[name])
        return found

    @property
    def is_empty(self) -> bool:
        return not self._gradients

    @property
    def names(self) -> Collection[str]:
        return self._layout.shapes.keys()

    @property
    def elements(self) -> Tensor:
        return super().elements if self._layout.large else self._layout.buffer.unsqueeze(0)

    @property
    def size(self) -> int:
        return self._layout.size

    def sizes(self, per: str) -> Tensor:
        return self._layout.sizes(per)

    @property
    def _in_order(self) -> Tensors:
        return {name: self.tensors[name] for name in self._layout.shapes}

    def of(self, names: Sequence[str]) -> Measured:
        return self  # which has no others

    @cached_property
    def maximum(self) -> Tensor:
        return self.norms("model", math.inf)

    def norms(self, per: str, p: float) -> Tensor:
        if (per, p) not in self._known:
            self._known[per, p] = self._norms_of_model(p) if per == "model" else self._norms_of_places(per, p)
        return self._known[per, p]

    def _norms_of_model(self, p: float) -> Tensor:
        dtype = self._layout.like.dtype
        parts = [_norm(self._layout.buffer, p, dtype)] if self._names else []
        parts += _norms(self._large, p, dtype) if self._large else []
        if len(parts) == 1:
            return parts[0].view(1, 1)
        return (_norm(torch.stack(parts), p, dtype) if parts else self._layout.like.new_zeros(1)).view(1, 1)

    def _norms_of_places(self, per: str, p: float) -> Tensor:
        if per == "column":
            return places.norms(self._in_order, per, p, exact=True)
        buffer, dtype = self._layout.buffer, self._layout.like.dtype
        found = [
            _norm(buffer[start : start + count * width].view(count, width), p, dtype, dim=(1,))
            for start, count, width in self._layout.regions(per)
        ]
        if per == "tensor" and len(self._large) == len(self._layout.large):
            found += [torch.stack(_norms(self._large, p, dtype))] if self._large else []
        else:
            for name in self._layout.large:
                count = self._layout.places(name, per)
                gradient = self._gradients.get(name)
                if gradient is None:
                    found.append(buffer.new_zeros(count))
                else:
                    dim = tuple(range(1, gradient.dim())) if count > 1 else tuple(range(gradient.dim()))
                    found.append(_norm(gradient, p, dtype, dim).view(count))
        return self._layout.in_order(torch.cat(found).unsqueeze(0), per)

    # Changes

    def scaled(self, coefficient: Tensor, per: str) -> Tensors:
        """Multiply the gradients in place; `coefficient` is [1, places]."""
        if not self._gradients:
            return {}
        if coefficient.device.type == "cpu" and bool((coefficient == 1).all()):
            return {}
        if per == "model" and not self._layout.is_spread:
            torch._foreach_mul_(list(self._gradients.values()), coefficient.view(()))
        elif per == "model":
            self._write({name: t * coefficient.view(()) for name, t in self.tensors.items()})
        elif per == "column":
            self._write(places.scaled(self._in_order, coefficient, per))
        else:
            self._scale_places(self._layout.small_first(coefficient, per)[0], per)
        return {}

    def _scale_places(self, coefficient: Tensor, per: str) -> None:
        """Multiply by a coefficient of each place, those of small tensors first."""
        position = 0
        for start, count, width in self._layout.regions(per):
            block = self._layout.buffer[start : start + count * width].view(count, width)
            block.mul_(coefficient[position : position + count].view(-1, 1))
            position += count
        if self._names:
            torch._foreach_copy_(self._small, self._views)
        for name in self._layout.large:
            count = self._layout.places(name, per)
            if (gradient := self._gradients.get(name)) is not None:
                mine = coefficient[position : position + count]
                gradient.mul_(mine.view(-1, *[1] * (gradient.dim() - 1)))
            position += count

    def replaced(self, elements: Tensor) -> Tensors:
        """Write all elements."""
        if not self._gradients:
            return {}
        if self._layout.large:
            self._write(super().replaced(elements))
        else:
            self._write_small(elements)
        return {}

    def merged(self, changed: Tensors) -> Tensors:
        return {}  # they are changed in place

    def dot(self, new: Tensor, old: Tensor) -> Tensor:
        return torch.dot(new[0], old[0]).view(1)

    def count_changed(self, new: Tensor, old: Tensor) -> Tensor:
        if self.maximum.device.type != "cpu" or not math.isfinite(float(self.maximum)):
            return super().count_changed(new, old)
        return torch.count_nonzero(new - old).to(new.dtype).view(1)  # faster than comparing, and the same for numbers

    def _write(self, rows: Tensors) -> None:
        torch._foreach_copy_(list(self._gradients.values()), [rows[name][0] for name in self._gradients])

    def clamped(self, low: Tensor, high: Tensor) -> Tensor:
        """Clamp every element to [low, high] in place, and return whether there was any outside."""
        if not self._gradients:
            return torch.zeros_like(low, dtype=torch.bool)
        if low.device.type == "cpu":
            return torch.tensor(self._clamped_on_cpu(float(low), float(high)))
        self.norm  # noqa: B018 - of the gradients as they are
        tensors = [self._layout.buffer, *self._large] if self._names else self._large
        ends = [tensor.aminmax() for tensor in tensors]
        inside = [(least >= low) & (largest <= high) for least, largest in ends]  # a NaN is outside
        for tensor in tensors:
            self._clamp(tensor, low, high)
        return ~torch.stack(inside).all()

    def _clamped_on_cpu(self, low: float, high: float) -> bool:
        """Measure the norm and clamp in one walk, part by part, while a part is in the cache of the core.

        Elements outside are looked for until there is one, often among the first.
        """
        fired, norms = False, []
        certain = 0.999 * min(-low, high)  # no element is larger than the norm of all, except for rounding
        for part in self._parts():
            norms.append(_norm(part, 2.0, self._layout.like.dtype))
            if not fired and not float(norms[-1]) <= certain:
                fired = not (float(part.amin()) >= low and float(part.amax()) <= high)
            if fired:
                self._clamp(part, low, high)
        self._known.setdefault(("model", 2.0), _norm(torch.stack(norms), 2.0, norms[0].dtype).view(1, 1))
        return fired

    def _parts(self) -> Iterator[Tensor]:
        """Yield all small tensors as one, and parts of the large ones."""
        if self._names:
            yield self._layout.buffer
        for tensor in self._large:
            yield from torch.split(tensor, _rows_of(CLAMPED, tensor))

    def _clamp(self, tensor: Tensor, low: Any, high: Any) -> None:
        tensor.clamp_(low, high)
        if tensor is self._layout.buffer:
            torch._foreach_copy_(self._small, self._views)

    def chunks(self) -> Iterator[ElementChunk]:
        """Yield the elements in parts, with whole rows: all of the small tensors, then some rows of a large one."""
        if self._names:
            yield ElementChunk(self._layout.buffer.unsqueeze(0), [*self._layout.views.values()], self._write_small)
        for gradient in self._large:
            for part in torch.split(gradient, _rows_of(CHUNK, gradient)):
                elements = part.reshape(1, -1).to(self._layout.like.dtype)
                yield ElementChunk(elements, [part], partial(_write_part, part))

    def _write_small(self, elements: Tensor) -> None:
        self._layout.buffer.copy_(elements[0])
        torch._foreach_copy_(self._small, self._views)


def _rows_of(elements: int, tensor: Tensor) -> int:
    return max(1, elements * len(tensor) // tensor.numel())


def _write_part(part: Tensor, elements: Tensor) -> None:
    part.copy_(elements.view(part.shape))


def _norm(x: Tensor, p: float, dtype: torch.dtype, dim: tuple[int, ...] | None = None) -> Tensor:
    if math.isinf(p) and x.device.type == "cpu":  # where torch's own is ten times slower than these
        least, largest = (x.amin(dim), x.amax(dim)) if dim is not None else x.aminmax()
        return torch.maximum(-least, largest).to(dtype)
    found: Tensor = torch.linalg.vector_norm(x, p, dim=dim, dtype=dtype)
    return found


def _norms(tensors: list[Tensor], p: float, dtype: torch.dtype) -> list[Tensor]:
    if math.isinf(p) and tensors[0].device.type == "cpu":
        return [_norm(x, p, dtype) for x in tensors]
    return list(torch._foreach_norm(tensors, p, dtype=dtype))
