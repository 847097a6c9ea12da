"""A rule on the gradients of a step, without what is recorded of it: only whether it fired, and keeps the step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clipbench.clipper.gradient_list import ElementChunk, GradientList
from clipbench.engine.clipping import places
from clipbench.engine.clipping.clip import Clip, Clipped, divided_memory, joined_memory
from clipbench.engine.clipping.measured import Measured
from clipbench.engine.clipping.rule import Memory, Now


class Done(NamedTuple):
    """What a rule did."""

    fired: Tensor
    keep: Tensor | None  # whether the step is taken; None: always
    memory: Memory


class ListClip(Clip):
    """A rule on groups of tensors, each on its own."""

    _bounds: tuple[Now, Tensor, Tensor] | None = None  # the last ones, where they depend on the threshold alone

    def __call__(self, measured: Measured, weights: Measured, now: Now, memory: Memory) -> Clipped:
        """Apply the rule, and return what it did."""
        measured.maximum  # noqa: B018 - computed before the gradients are changed in place
        return super().__call__(measured, weights, now, memory)

    def act(self, measured: Measured, weights: Measured, now: Now, memory: Memory) -> Done:
        """Apply the rule as `Clip` does, and compute no more than that needs."""
        if self.rule.per == "step":
            names = self.groups[0].names
            keep, memory = self.rule(self.statistics_of_places(measured.of(names), weights.of(names)), now, memory)
            keep = keep.reshape(())
            return Done(~keep, keep, memory)
        memories = divided_memory(self.rule, memory, measured, self.groups)
        found = [
            self._act(measured.of(group.names), weights.of(group.names), group.now(now), part)
            for group, part in zip(self.groups, memories, strict=True)
        ]
        if len(found) == 1:
            return found[0]
        fired = torch.stack([each.fired for each in found]).any()
        return Done(fired, None, joined_memory([each.memory for each in found]))

    def _act(self, mine: Measured, weights: Measured, now: Now, memory: Memory) -> Done:
        if self.rule.clamps and isinstance(mine, GradientList):
            return Done(mine.clamped(*self._bounds_of(mine, weights, now)), None, memory)
        mine.norm  # noqa: B018 - computed before the gradients are changed in place
        if self.rule.per != "element":
            coefficient, fired, memory = self.rule.scaling(self.statistics_of_places(mine, weights), now, memory)
            mine.scaled(coefficient, self.rule.per)
            return Done(fired.any(), None, memory)
        if (divisible := self._divisible(mine)) is None:
            old = mine.elements
            new, memory = self.rule(self.statistics_of_elements(mine, old, weights), now, memory)
            fired = mine.count_changed(new, old)[0] > 0
            mine.replaced(new)
            return Done(fired, None, memory)
        found = []
        for chunk, new in self._by_chunks(divisible, weights, now):
            found.append((new != chunk.elements).any())
            chunk.write(new)
        return Done(torch.stack(found).any(), None, memory)

    def _elements(self, mine: Measured, whole: Measured, weights: Measured, now: Now, memory: Memory) -> Any:
        if (divisible := self._divisible(mine)) is None:
            return super()._elements(mine, whole, weights, now, memory)
        found = []
        for chunk, new in self._by_chunks(divisible, weights, now):
            old = chunk.elements
            found.append((mine.norm_of(new), mine.dot(new, old / whole.norm), mine.count_changed(new, old)))
            chunk.write(new)
        posts, along, changed = (torch.stack(each, 1) for each in zip(*found, strict=True))
        return {}, places.norm(posts, 2.0, self.exact), along.sum(1), changed.sum(1), memory, None

    def _by_chunks(self, mine: GradientList, weights: Measured, now: Now) -> Iterator[tuple[ElementChunk, Tensor]]:
        """Yield some elements at a time, and what the rule makes of them."""
        for chunk in mine.chunks():
            statistics = dict(self.statistics_of_elements(mine, chunk.elements, weights))
            statistics["row_mean"] = partial(_row_means, chunk)
            yield chunk, self.rule(statistics, now, {})[0]

    def _divisible(self, mine: Measured) -> GradientList | None:
        """Return the list if some elements can be changed at a time: clipbench's own rules look at one of them."""
        rule = self.rule
        one_by_one = not (rule.is_users or rule.init or "w" in rule.plugin.given)
        return mine if one_by_one and isinstance(mine, GradientList) and not mine.is_empty else None

    def _bounds_of(self, mine: Measured, weights: Measured, now: Now) -> tuple[Tensor, Tensor]:
        """Return the bounds to which a rule clamps: what it makes of -inf and inf."""
        if self._bounds is not None and self._bounds[0] is now:
            return self._bounds[1:]
        ends = now.threshold.new_tensor([[-math.inf, math.inf]])
        low, high = self.rule(self.statistics_of_elements(mine, ends, weights), now, {})[0][0]
        if self.rule.plugin.given == {"g"}:
            self._bounds = now, low, high
        return low, high


def _row_means(chunk: ElementChunk) -> Tensor:
    return places.row_means({str(number): tensor.unsqueeze(0) for number, tensor in enumerate(chunk.tensors)})
