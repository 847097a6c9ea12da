"""Rules on runs of lanes: given their statistics, carried out, and what they did recorded in the step's row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipbench import registry
from clipbench.engine.blocks import Blocks, lane_norms
from clipbench.engine.telemetry import COSINE, FIRED, FRACTION, MAX, POST, PRE, Telemetry
from clipbench.trial import Component

# Options of an arm that are the engine's business; all others are the rule's own.
COMMON = ("per", "exclude", "threshold")
# A coefficient this small may round a gradient to nothing, and then no direction is kept.
VANISHING = 1e-20


class Rule:
    """A plug-in with its options, for some lanes: call it with whatever statistics there are."""

    def __init__(self, arms: Sequence[Component], like: Tensor) -> None:
        self._plugin = registry.find("strategy", arms[0].name, arms[0].folder)
        self._options: dict[str, Any] = {k: v for k, v in arms[0].options if k not in COMMON}
        self.limits = [1.0]
        if "threshold" in self._plugin.options:
            self.limits = [float(arm["threshold"]) for arm in arms]  # type: ignore[arg-type]
            self._options["threshold"] = like.new_tensor(self.limits).unsqueeze(1)
        self.p = float(self._options.get("p", 2.0))
        self.refuses = bool(self._plugin.facts.get("refuses", False))

    def needs(self, statistic: str) -> bool:
        return statistic in self._plugin.given

    def __call__(self, **statistics: Tensor) -> Any:
        given = {name: value for name, value in statistics.items() if name in self._plugin.given}
        return self._plugin.function(**given, **self._options)


class Run:
    """Consecutive lanes that are clipped in one go, and what their gradients look like."""

    def __init__(
        self,
        arms: Sequence[Component],
        lanes: slice,
        names: Sequence[str],
        params: Blocks,
        grads: Blocks,
        telemetry: Telemetry,
    ) -> None:
        self.lanes, self.count = lanes, len(arms)
        self.rule = Rule(arms, grads.storage)
        self.refuses = self.rule.refuses
        self.seconds, self.timings = 0.0, 0
        self.elements = grads.size
        self.grads = {name: grads[name][lanes].view(self.count, -1) for name in names}
        self.weights = {name: params[name][lanes].view(self.count, -1) for name in names}
        self.row = telemetry.row[:, lanes]
        indices = [list(grads).index(name) for name in names]
        self.whole = len(names) == len(grads)
        self._indices = slice(None) if self.whole else indices
        self._others = [index for index in range(len(grads)) if index not in indices]
        self._tensor_norms, self._tensor_maxima = telemetry.norms[:, lanes], telemetry.maxima[:, lanes]

    def __call__(self) -> None:
        raise NotImplementedError

    def tensor_norms(self, p: float) -> Tensor:
        """The p-norm of each included tensor: [lanes, tensors]."""
        if p == 2 or math.isinf(p):
            known = self._tensor_norms if p == 2 else self._tensor_maxima
            # Contiguous, so that sums over places add in the same order however many lanes there are.
            return known[self._indices].T.contiguous()
        return torch.stack([torch.linalg.vector_norm(g, p, dim=1) for g in self.grads.values()], dim=1)

    def model_norm(self, p: float) -> Tensor:
        """The p-norm over all included tensors: [lanes, 1]."""
        if p == 2 and self.whole:
            return self.row[PRE].unsqueeze(1)
        norm: Tensor = torch.linalg.vector_norm(self.tensor_norms(p), p, dim=1, keepdim=True)
        return norm

    def model_maximum(self) -> Tensor:
        if self.whole:
            return self.row[MAX].unsqueeze(1)
        return self._tensor_maxima[self._indices].amax(0).unsqueeze(1)

    def rest(self) -> Tensor:
        """Squared norm of the excluded tensors, which stay as they are: [lanes]."""
        return self._tensor_norms[self._others].square().sum(0)

    def model_weights_norm(self, p: float) -> Tensor:
        return lane_norms(self.weights.values(), p).unsqueeze(1)

    def record(self, after: Tensor, dot: Tensor, fired: Tensor, fraction: Tensor) -> None:
        """`dot` is the scalar product of the gradients before and after; all [lanes]."""
        before = self.row[PRE]
        product = before * after
        # 1 where nothing was there to change, 0 where nothing is left.
        cosine = torch.where(product > 0, dot / product, (before == 0).to(dot.dtype))
        for statistic, values in ((POST, after), (COSINE, cosine), (FIRED, fired), (FRACTION, fraction)):
            self.row[statistic].copy_(values)


class ModelRun(Run):
    """Rules that give one coefficient to a whole model; different ones share a run."""

    def __init__(self, arms: Sequence[Component], *arguments: Any) -> None:
        super().__init__(arms, *arguments)
        self._coefficient = torch.ones_like(self.row[PRE]).unsqueeze(1)
        self._fired = self.row[FIRED].unsqueeze(1)
        self._parts: list[tuple[Rule, slice]] = []
        for _, group in itertools.groupby(range(self.count), lambda lane: _sans_threshold(arms[lane])):
            lanes = list(group)
            part = slice(lanes[0], lanes[-1] + 1)
            self._parts.append((Rule(arms[part], self._coefficient), part))
        self._may_vanish = any(min(rule.limits) < VANISHING for rule, _ in self._parts)

    def __call__(self) -> None:
        for rule, lanes in self._parts:
            coefficient, fired = rule(**self._statistics(rule, lanes))
            self._coefficient[lanes].copy_(coefficient)
            self._fired[lanes].copy_(fired)
        for gradient in self.grads.values():
            gradient.mul_(self._coefficient)
        torch.mul(self._coefficient.squeeze(1), self.row[PRE], out=self.row[POST])
        self.row[FRACTION].copy_(self.row[FIRED])
        if self._may_vanish:
            kept = (self.row[POST] > 0) | (self.row[PRE] == 0)
            self.row[COSINE].copy_(kept)

    def _statistics(self, rule: Rule, lanes: slice) -> dict[str, Tensor]:
        n = self.model_norm(rule.p)[lanes]
        statistics = {
            "n": n,
            "model_n": n,
            "model_m": self.model_maximum()[lanes],
            "m": self.model_maximum()[lanes],
        }
        if rule.needs("w"):
            statistics["w"] = self.model_weights_norm(rule.p)[lanes]
        return statistics


class PlacesRun(Run):
    """Rules that return a coefficient for each place: part of a model, each tensor, each unit."""

    def __init__(self, arms: Sequence[Component], lanes: slice, names: Sequence[str], *blocks: Any) -> None:
        super().__init__(arms, lanes, names, *blocks)
        options = arms[0].as_dict()
        plugin = registry.find("strategy", arms[0].name, arms[0].folder)
        self._per = str(options.get("per") or plugin.facts["per"])
        shapes = {name: blocks[1][name].shape[1:] for name in names}
        # A unit is a row of a matrix or a filter; a bias is one unit.
        rows = {n: shape[0] if self._per == "unit" and len(shape) > 1 else 1 for n, shape in shapes.items()}
        self._units = {name: g.view(self.count, rows[name], -1) for name, g in self.grads.items()}
        self._unit_weights = {name: w.view(self.count, rows[name], -1) for name, w in self.weights.items()}
        sizes = [g.shape[2] for g in self._units.values() for _ in range(g.shape[1])]
        self._sizes = self.row.new_tensor([sum(sizes)] if self._per == "model" else sizes)

    def __call__(self) -> None:
        n = self._norms(self.rule.p)
        statistics = {"n": n, "model_n": self.model_norm(self.rule.p), "model_m": self.model_maximum()}
        if self.rule.needs("w"):
            statistics["w"] = self._weight_norms(self.rule.p)
        if self.rule.needs("m"):
            statistics["m"] = self._norms(math.inf)
        coefficient, fired = self.rule(**statistics)
        self._scale(coefficient)
        n = n if self.rule.p == 2 else self._norms(2.0)
        scaled = coefficient * n
        rest = self.rest()
        after = (scaled.square().sum(1) + rest).sqrt()
        fraction = (fired * self._sizes).sum(1) / self.elements
        self.record(after, (scaled * n).sum(1) + rest, fired.any(1), fraction)

    def _scale(self, coefficient: Tensor) -> None:
        start = 0
        for gradient in self._units.values():
            stop = start + gradient.shape[1]
            if self._per == "model":
                gradient.mul_(coefficient.unsqueeze(-1))
            else:
                gradient.mul_(coefficient[:, start:stop].unsqueeze(-1))
            start = stop

    def _norms(self, p: float) -> Tensor:
        """Norms of the gradient at the rule's own places: [lanes, places]."""
        if self._per == "model":
            return self.model_norm(p)
        return self.tensor_norms(p) if self._per == "tensor" else _at_units(self._units, p)

    def _weight_norms(self, p: float) -> Tensor:
        return self.model_weights_norm(p) if self._per == "model" else _at_units(self._unit_weights, p)


class ElementRun(Run):
    """Rules that return new elements. Their lanes are gathered into one matrix, so that a rule is called once."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        sizes = [gradient.shape[1] for gradient in self.grads.values()]
        self._old = self.row.new_zeros(self.count, sum(sizes))
        self._scratch = torch.empty_like(self._old)
        self._columns = torch.split(self._old, sizes, dim=1)
        self._sizes = sizes

    def __call__(self) -> None:
        old, scratch = self._old, self._scratch
        for gradient, columns in zip(self.grads.values(), self._columns, strict=True):
            columns.copy_(gradient)
        new = self.rule(g=old, model_n=self.model_norm(2.0), model_m=self.model_maximum())
        rest = self.rest()
        after = (torch.mul(new, new, out=scratch).sum(1) + rest).sqrt()
        dot = torch.mul(new, old, out=scratch).sum(1) + rest
        changed = torch.ne(new, old, out=scratch).sum(1)  # as floats: summing booleans is five times slower
        self.record(after, dot, changed > 0, changed / self.elements)
        for gradient, columns in zip(self.grads.values(), torch.split(new, self._sizes, dim=1), strict=True):
            gradient.copy_(columns)


class StepRun(Run):
    """Rules that keep or refuse the whole step; the optimizer reads `keep`."""

    keep: Tensor

    def __call__(self) -> None:
        n = self.model_norm(self.rule.p)
        self.keep = self.rule(n=n, model_n=n, model_m=self.model_maximum()).view(-1)
        refused = (~self.keep).to(self.row.dtype)
        before = self.row[PRE]
        after = torch.where(self.keep, before, 0.0)
        self.record(after, after * after, refused, refused)


def _at_units(units: dict[str, Tensor], p: float) -> Tensor:
    return torch.cat([torch.linalg.vector_norm(tensor, p, dim=2) for tensor in units.values()], dim=1)


def _sans_threshold(arm: Component) -> tuple[Any, ...]:
    return arm.name, arm.source, arm.without("threshold").options
