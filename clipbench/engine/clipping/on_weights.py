"""Rules that bound the weights: they are applied after the optimizer's step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipbench.core.trial import Component
from clipbench.engine.clipping.lane_groups import LaneGroup, norms_of_units, place_of, units_of
from clipbench.engine.model.stacked import StackedTensors, lane_norms
from clipbench.engine.telemetry import COSINE, FIRED, FRACTION, POST, PRE


class WeightsGroup(LaneGroup):
    """Consecutive lanes whose weights are changed together; their gradients are not changed."""

    def __init__(
        self, arms: Sequence[Component], lanes: slice, names: Sequence[str], params: StackedTensors, *arguments: Any
    ) -> None:
        super().__init__(arms, lanes, names, params, *arguments)
        self._per = place_of(arms[0])
        self._units = units_of(self.weights, params, self._per)
        self._widths = [unit.shape[1] for unit in self._units.values()]
        self._sizes = self.post.new_tensor([u.shape[2] for u in self._units.values() for _ in range(u.shape[1])])
        self._old = torch.empty_like(self._concatenated(self.weights)) if self.rule.needs("old") else None

    def store_weights(self) -> None:
        """Store the weights before the step, for rules that need them."""
        if self._old is not None:
            self._old.copy_(self._concatenated(self.weights))

    def __call__(self) -> None:
        changed = self._replace() if self._per == "element" else self._scale()
        torch.sum(changed, dim=1, out=self.fraction)

    def finish(self, steps: Tensor) -> None:
        steps[:, POST] = steps[:, PRE]
        steps[:, COSINE] = 1.0
        steps[:, FIRED] = (steps[:, FRACTION] > 0).to(steps.dtype)
        steps[:, FRACTION] /= self.elements

    def _replace(self) -> Tensor:
        """Replace the elements; return which of them differ."""
        new = self._concatenated(self.weights)
        given = {"new": new.clone() if self.rule.is_users else new, "w": new.abs(), "size": new.new_ones(1)}
        if self.rule.needs("g"):
            given["g"] = self._concatenated(self.grads)
        if self._old is not None:
            given["old"] = self._old
        result: Tensor = self.rule(**given)
        sizes = [w.shape[1] for w in self.weights.values()]
        for weights, columns in zip(self.weights.values(), torch.split(result, sizes, dim=1), strict=True):
            weights.copy_(columns)
        return torch.ne(result, new).to(new.dtype)

    def _scale(self) -> Tensor:
        """Multiply every place by its coefficient; return the number of changed elements of each."""
        whole = self._per == "model"
        norms = (
            lane_norms(self.weights.values(), self.rule.p).unsqueeze(1)
            if whole
            else norms_of_units(self._units, self.rule.p)
        )
        sizes = self._sizes.sum().view(1) if whole else self._sizes
        coefficient, fired = self.rule.scaling(w=norms, size=sizes)
        columns = [coefficient] * len(self._units) if whole else torch.split(coefficient, self._widths, dim=1)
        for unit, column in zip(self._units.values(), columns, strict=True):
            unit.mul_(column.unsqueeze(-1))
        changed: Tensor = fired * sizes
        return changed

    def _concatenated(self, tensors: dict[str, Tensor]) -> Tensor:
        return torch.cat(list(tensors.values()), dim=1)
