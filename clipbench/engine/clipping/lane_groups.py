"""Groups of consecutive lanes that are clipped together: they compute statistics, call the rule and record it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clipbench.core.trial import Component
from clipbench.engine.clipping.rule import Rule
from clipbench.engine.clipping.safe_norms import merged, norms, norms_after, project
from clipbench.engine.model.stacked import StackedTensors, lane_norms
from clipbench.engine.telemetry import COSINE, FIRED, FRACTION, MAX, POST, PRE, Telemetry
from clipbench.plugins import registry


class LaneGroup:
    """Consecutive lanes that are clipped together, and the statistics of their gradients."""

    def __init__(
        self,
        arms: Sequence[Component],
        lanes: slice,
        names: Sequence[str],
        params: StackedTensors | None,  # None where no rule asks for them
        grads: StackedTensors,
        telemetry: Telemetry,
    ) -> None:
        self.lanes, self.count = lanes, len(arms)
        self.rule = Rule(arms, grads.storage)
        self.refuses = self.rule.refuses
        self.seconds, self.timings = 0.0, 0
        self.elements = grads.size
        self.grads = {name: grads[name][lanes].view(self.count, -1) for name in names}
        self.weights = {name: params[name][lanes].view(self.count, -1) for name in names} if params else {}
        # Views of memory that never moves, so that a step need not make them.
        self._telemetry = telemetry
        row = telemetry.row[:, lanes]
        self.pre, self.post, self.fraction, self.cosine = (row[i] for i in (PRE, POST, FRACTION, COSINE))
        self._pre_column, self._max_column = row[PRE].unsqueeze(1), row[MAX].unsqueeze(1)
        indices = [list(grads).index(name) for name in names]
        self._whole = len(names) == len(grads)
        self._indices = slice(None) if self._whole else indices
        self._others = [index for index in range(len(grads)) if index not in indices]
        self._tensor_norms, self._tensor_maxima = telemetry.norms[:, lanes], telemetry.maxima[:, lanes]

    @property
    def rules(self) -> list[tuple[Rule, slice]]:
        """The rules of the group, and the lanes of each."""
        return [(self.rule, self.lanes)]

    def __call__(self) -> None:
        """Clip, and write the raw sums that `finish` reads into `post`, `fraction` and `cosine`."""
        raise NotImplementedError

    @property
    def to_scale(self) -> Tensor | None:
        """The mask of lanes whose norms need scaling at this step; None if there are none."""
        mask = self._telemetry.to_scale
        return None if mask is None else mask[self.lanes]

    def finish(self, steps: Tensor) -> None:
        """Turn the raw sums of all steps, [steps, statistics, lanes], into the values of the columns.

        Most groups record the norm after clipping, its component in the direction of the raw gradient, and the number
        of changed elements: none of them overflows where norms do not, as a scalar product would.
        """
        before, after = steps[:, PRE], steps[:, POST]
        # 1 where the gradient was 0, 0 where clipping left nothing of it.
        nothing = (before == 0).to(after.dtype)
        steps[:, COSINE] = torch.where((before > 0) & (after > 0), steps[:, COSINE] / after, nothing)
        steps[:, FIRED] = (steps[:, FRACTION] > 0).to(after.dtype)
        steps[:, FRACTION] /= self.elements

    def tensor_norms(self, p: float) -> Tensor:
        """Return the p-norm of each included tensor: [lanes, tensors]."""
        if p == 2 or math.isinf(p):
            known = self._tensor_norms if p == 2 else self._tensor_maxima
            # Contiguous, so that sums over places have the same order for any number of lanes.
            return known[self._indices].T.contiguous()
        return torch.stack([norms(g, p, self.to_scale) for g in self.grads.values()], dim=1)

    def model_norm(self, p: float) -> Tensor:
        """Return the p-norm over all included tensors: [lanes, 1]."""
        if p == 2 and self._whole:
            return self._pre_column
        return norms(self.tensor_norms(p), p, self.to_scale).unsqueeze(1)

    def model_maximum(self) -> Tensor:
        if self._whole:
            return self._max_column
        return self._tensor_maxima[self._indices].amax(0).unsqueeze(1)

    def add_excluded(self) -> None:
        """Add the excluded tensors, which are not changed, to both sums."""
        if self._others:
            rest = norms(self._tensor_norms[self._others].T.contiguous(), 2.0, self.to_scale)
            norms_after(torch.stack([self.post, rest], dim=1), out=self.post)
            self.cosine += rest * (rest / self.pre)


class ModelGroup(LaneGroup):
    """Rules that return one coefficient for a whole model; different rules share a group.

    It records the coefficient, in `post`; the other statistics follow from it.
    """

    def __init__(self, arms: Sequence[Component], *arguments: Any) -> None:
        super().__init__(arms, *arguments)
        self._coefficient, self._fired = self.post.unsqueeze(1), self.fraction.unsqueeze(1)
        self._parts: list[tuple[Rule, slice]] = []
        for _, group in itertools.groupby(range(self.count), lambda lane: _without_threshold(arms[lane])):
            lanes = list(group)
            part = slice(lanes[0], lanes[-1] + 1)
            self._parts.append((Rule(arms[part], self._coefficient), part))

    @property
    def rules(self) -> list[tuple[Rule, slice]]:
        first = self.lanes.start
        return [(rule, slice(first + part.start, first + part.stop)) for rule, part in self._parts]

    def __call__(self) -> None:
        for rule, lanes in self._parts:
            coefficient, fired = rule.scaling(**self._statistics(rule, lanes))
            self._coefficient[lanes].copy_(coefficient)
            self._fired[lanes].copy_(fired)
        for gradient in self.grads.values():
            gradient.mul_(self._coefficient)

    def finish(self, steps: Tensor) -> None:
        coefficient, before = steps[:, POST], steps[:, PRE]
        after = coefficient * before  # a user's rule may return a negative coefficient, which reverses the gradient
        steps[:, COSINE] = torch.where(before == 0, 1.0, after.sign())
        steps[:, POST] = after.abs()
        steps[:, FIRED] = steps[:, FRACTION]

    def _statistics(self, rule: Rule, lanes: slice) -> dict[str, Tensor]:
        n = self.model_norm(rule.p)[lanes]
        statistics = {"n": n, "model_n": n}
        if rule.needs("m") or rule.needs("model_m"):
            statistics["m"] = statistics["model_m"] = self.model_maximum()[lanes]
        if rule.needs("w"):
            statistics["w"] = lane_norms(self.weights.values(), rule.p).unsqueeze(1)[lanes]
        if rule.needs("size"):
            statistics["size"] = n.new_full((1,), self.elements)
        return statistics


class PlacesGroup(LaneGroup):
    """Rules that return a coefficient for each place: a part of the model, each tensor, each unit."""

    def __init__(self, arms: Sequence[Component], lanes: slice, names: Sequence[str], *blocks: Any) -> None:
        super().__init__(arms, lanes, names, *blocks)
        self._per = place_of(arms[0])
        self._units = units_of(self.grads, blocks[1], self._per)
        self._unit_weights = units_of(self.weights, blocks[1], self._per)
        sizes = [g.shape[2] for g in self._units.values() for _ in range(g.shape[1])]
        self._sizes = self.post.new_tensor([sum(sizes)] if self._per == "model" else sizes)
        self._coefficient = self.post.new_ones(self.count, len(self._sizes))
        self._columns = self._coefficients_of_tensors()

    def __call__(self) -> None:
        n = self._norms(self.rule.p)
        coefficient, fired = self.rule.scaling(**self._statistics(n))
        self._coefficient.copy_(coefficient)
        n = n if self.rule.p == 2 else self._norms(2.0)
        for gradient, columns in zip(self._units.values(), self._columns, strict=True):
            gradient.mul_(columns)
        scaled = self._coefficient * n
        norms_after(scaled, out=self.post)
        torch.sum(scaled * (n / self._pre_column), dim=1, out=self.cosine)
        torch.sum(fired * self._sizes, dim=1, out=self.fraction)
        self.add_excluded()

    def _statistics(self, n: Tensor) -> dict[str, Tensor]:
        statistics = {"n": n, "size": self._sizes}
        if self.rule.needs("model_n"):
            statistics["model_n"] = self.model_norm(self.rule.p)
        if self.rule.needs("model_m"):
            statistics["model_m"] = self.model_maximum()
        if self.rule.needs("w"):
            statistics["w"] = self._weight_norms(self.rule.p)
        if self.rule.needs("m"):
            statistics["m"] = self._norms(math.inf)
        return statistics

    def _coefficients_of_tensors(self) -> list[Tensor]:
        """Return for each tensor a view of the coefficients of its places that can be multiplied with it."""
        if self._per == "model":
            return [self._coefficient.unsqueeze(-1)] * len(self._units)
        widths = [gradient.shape[1] for gradient in self._units.values()]
        return [columns.unsqueeze(-1) for columns in torch.split(self._coefficient, widths, dim=1)]

    def _norms(self, p: float) -> Tensor:
        """Return the norms of the gradient at the places of the rule: [lanes, places]."""
        if self._per == "model":
            return self.model_norm(p)
        return self.tensor_norms(p) if self._per == "tensor" else norms_of_units(self._units, p, self.to_scale)

    def _weight_norms(self, p: float) -> Tensor:
        if self._per == "model":
            return lane_norms(self.weights.values(), p).unsqueeze(1)
        return norms_of_units(self._unit_weights, p)


class ElementGroup(LaneGroup):
    """Rules that return new elements. The lanes are copied into one matrix, so that the rule is called once."""

    def __init__(self, arms: Sequence[Component], lanes: slice, names: Sequence[str], *blocks: Any) -> None:
        super().__init__(arms, lanes, names, *blocks)
        shapes = [blocks[1][name].shape[1:] for name in names]
        self._rows = [
            gradient.view(self.count, shape[0], -1) if len(shape) > 1 else None
            for gradient, shape in zip(self.grads.values(), shapes, strict=True)
        ]
        sizes = [gradient.shape[1] for gradient in self.grads.values()]
        self._old = self.post.new_zeros(self.count, sum(sizes))
        self._scratch = torch.empty_like(self._old)
        self._columns = torch.split(self._old, sizes, dim=1)
        self._sizes = sizes

    def __call__(self) -> None:
        old, scratch = self._old, self._scratch
        for gradient, columns in zip(self.grads.values(), self._columns, strict=True):
            columns.copy_(gradient)
        # A user's rule may work in place.
        new = self.rule(**self._statistics(old.clone() if self.rule.is_users else old))
        to_scale = merged(self.to_scale, norms_after(new, out=self.post))
        project(new, old, self.pre, to_scale, out=self.cosine, scratch=scratch)
        # As floats: summing booleans is five times slower.
        torch.sum(torch.ne(new, old, out=scratch), dim=1, out=self.fraction)
        self.add_excluded()
        for gradient, columns in zip(self.grads.values(), torch.split(new, self._sizes, dim=1), strict=True):
            gradient.copy_(columns)

    def _statistics(self, g: Tensor) -> dict[str, Tensor]:
        """Return the statistics; the norm of an element is its absolute value."""
        statistics = {"g": g, "model_n": self.model_norm(2.0), "model_m": self.model_maximum()}
        if self.rule.needs("n") or self.rule.needs("m"):
            statistics["n"] = statistics["m"] = g.abs()
        if self.rule.needs("w"):
            statistics["w"] = torch.cat(list(self.weights.values()), dim=1).abs()
        if self.rule.needs("size"):
            statistics["size"] = g.new_ones(1)
        if self.rule.needs("row_mean"):
            statistics["row_mean"] = self._row_means()
        return statistics

    def _row_means(self) -> Tensor:
        """Return for each element the mean of its row or filter: [lanes, elements]; 0 where a tensor has no rows."""
        means = torch.zeros_like(self._old)
        for target, rows in zip(torch.split(means, self._sizes, dim=1), self._rows, strict=True):
            if rows is not None:
                target.copy_(rows.mean(2, keepdim=True).expand_as(rows).reshape(target.shape))
        return means


class StepGroup(LaneGroup):
    """Rules that take or refuse the whole step; the optimizer reads `keep`."""

    keep: Tensor

    def __call__(self) -> None:
        n, m = self.model_norm(self.rule.p), self.model_maximum()
        w = {"w": lane_norms(self.weights.values(), self.rule.p).unsqueeze(1)} if self.rule.needs("w") else {}
        self.keep = self.rule(n=n, m=m, model_n=n, model_m=m, **w).view(-1)
        self.fraction.copy_(~self.keep)

    def finish(self, steps: Tensor) -> None:
        refused = steps[:, FRACTION]
        steps[:, POST] = torch.where(refused > 0, 0.0, steps[:, PRE])
        steps[:, COSINE] = torch.where(refused > 0, (steps[:, PRE] == 0).to(refused.dtype), 1.0)
        steps[:, FIRED] = refused


def place_of(arm: Component) -> str:
    """Return where the rule of an arm looks: model, tensor, unit, element or step."""
    return str(arm.as_dict().get("per") or registry.of("strategy", arm).facts["per"])


def units_of(tensors: Mapping[str, Tensor], like: StackedTensors, per: str = "unit") -> dict[str, Tensor]:
    """Return views [lanes, units, elements]: a unit is a row of a matrix, a filter, or a whole tensor otherwise."""
    rows = {name: like[name].shape[1] if per == "unit" and like[name].dim() > 2 else 1 for name in tensors}
    return {name: tensor.view(len(tensor), rows[name], -1) for name, tensor in tensors.items()}


def norms_of_units(units: dict[str, Tensor], p: float, to_scale: Tensor | None = None) -> Tensor:
    return torch.cat([norms(tensor, p, to_scale, dim=2) for tensor in units.values()], dim=1)


def _without_threshold(arm: Component) -> tuple[Any, ...]:
    return arm.name, arm.source, arm.without("threshold").options
