"""What a rule does to tensors at its places, be they gradients, updates or weights, and what is recorded of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from clipbench.engine.clipping import places
from clipbench.engine.clipping.places import Tensors
from clipbench.engine.clipping.rule import Memory, Now, Rule
from clipbench.engine.clipping.threshold_groups import ThresholdGroup


class Measured:
    """Norms and largest elements of tensors [rows, *shape], each computed when it is first asked for."""

    def __init__(self, tensors: Tensors, exact: bool) -> None:
        self.tensors, self.exact = tensors, exact

    @cached_property
    def norm(self) -> Tensor:
        """The 2-norm of each row: [rows, 1]."""
        return self.norms("model", 2.0)

    @cached_property
    def _norms(self) -> Tensor:
        return places.norms(self.tensors, "tensor", 2.0, self.exact)

    @cached_property
    def _maxima(self) -> Tensor:
        return places.norms(self.tensors, "tensor", math.inf, self.exact)

    @cached_property
    def maximum(self) -> Tensor:
        """The largest absolute element of each row: [rows, 1]."""
        return self._maxima.amax(1, keepdim=True)

    def norms(self, per: str, p: float) -> Tensor:
        """Return the p-norms of the places: [rows, places]."""
        known = {2.0: "_norms", math.inf: "_maxima"}.get(p)
        if known and per == "tensor":
            found: Tensor = getattr(self, known)
            return found
        if known and per == "model":
            return places.norm(getattr(self, known), p, self.exact, keepdim=True)
        return places.norms(self.tensors, per, p, self.exact)

    def of(self, names: Sequence[str]) -> Measured:
        """Return the same of some of the tensors."""
        other = Measured(places.chosen(self.tensors, names), self.exact)
        if len(other.tensors) == len(self.tensors):
            return self
        columns = [list(self.tensors).index(name) for name in names]
        other.__dict__["_norms"] = torch.stack([self._norms[:, column] for column in columns], 1)
        other.__dict__["_maxima"] = torch.stack([self._maxima[:, column] for column in columns], 1)
        return other

    def rest(self, names: Sequence[str]) -> Tensor:
        """Return the 2-norm of the other tensors: [rows]."""
        columns = [column for column, name in enumerate(self.tensors) if name not in names]
        return places.norm(torch.stack([self._norms[:, column] for column in columns], 1), 2.0, self.exact)


@dataclass
class Clipped:
    """Tensors after a rule, and what it did to each row, [rows]."""

    tensors: dict[str, Tensor]
    post: Tensor  # the norm afterwards
    fired: Tensor  # 1 where it did something
    fraction: Tensor  # of the elements that it changed
    cosine: Tensor  # between the tensors before and after
    keep: Tensor | None  # whether the step is taken; None: always
    memory: Memory


@dataclass
class Clip:
    """A rule on groups of tensors, each on its own; other tensors stay as they are."""

    rule: Rule
    groups: Sequence[ThresholdGroup]
    exact: bool

    def __call__(self, measured: Measured, weights: Tensors, now: Now, memory: Memory) -> Clipped:
        """Apply the rule to tensors that were measured."""
        rule, before = self.rule, measured.norm[:, 0]
        if rule.per == "step":
            return self._kept(measured, measured.of(self.groups[0].names), weights, now, memory)
        change = self._elements if rule.per == "element" else self._scaled
        memories = divided_memory(rule, memory, measured.tensors, self.groups)
        found = [
            change(measured.of(group.names), before, weights, group.now(now), part)
            for group, part in zip(self.groups, memories, strict=True)
        ]
        new, post, along, changed, memory, fired = found[0]
        if len(found) > 1:
            news, posts, alongs, changes, parts, _ = zip(*found, strict=True)
            new, memory = {name: t for tensors in news for name, t in tensors.items()}, joined_memory(parts)
            post, along, changed = places.norm(torch.stack(posts, 1), 2.0, self.exact), sum(alongs), sum(changes)
        total = sum(t[0].numel() for t in measured.tensors.values())
        if len(new) < len(measured.tensors):
            rest = measured.rest(list(new))
            post = places.norm(torch.stack([post, rest], 1), 2.0, self.exact)
            along = along + rest * (rest / before)
        if fired is None:
            fired, fraction = (changed > 0).to(post.dtype), changed / total
            # 1 where the gradient was 0, 0 where clipping left nothing of it.
            nothing = (before == 0).to(post.dtype)
            cosine = torch.where((before > 0) & (post > 0), along / post, nothing)
        else:
            fraction, cosine = fired, along
        tensors = {name: new.get(name, t) for name, t in measured.tensors.items()}
        return Clipped(tensors, post, fired, fraction, cosine, None, memory)

    def _scaled(self, mine: Measured, before: Tensor, weights: Tensors, now: Now, memory: Memory) -> Any:
        """Multiply every place by its coefficient."""
        rule = self.rule
        statistics = {
            "n": lambda: mine.norms(rule.per, rule.p),
            "model_n": lambda: mine.norms("model", rule.p),
            "model_m": lambda: mine.maximum,
            "m": lambda: mine.norms(rule.per, math.inf),
            "w": lambda: places.norms(places.chosen(weights, list(mine.tensors)), rule.per, rule.p, self.exact),
            "size": lambda: places.sizes(mine.tensors, rule.per),
        }
        coefficient, fired, memory = rule.scaling(statistics, now, memory)
        new = places.scaled(mine.tensors, coefficient, rule.per)
        fired = fired.to(before.dtype)
        if rule.per == "model" and mine.tensors.keys() == weights.keys():
            after = coefficient[:, 0] * before  # a user's rule may return a negative coefficient: it turns the gradient
            along = torch.where(before == 0, 1.0, after.sign())
            return new, after.abs(), along, None, memory, fired[:, 0]
        n = mine.norms(rule.per, 2.0)
        changed = (fired * places.sizes(mine.tensors, rule.per)).sum(1)
        along = (coefficient * n * (n / before.unsqueeze(1))).sum(1)
        return new, places.norm(coefficient * n, 2.0, self.exact), along, changed, memory, None

    def _elements(self, mine: Measured, before: Tensor, weights: Tensors, now: Now, memory: Memory) -> Any:
        """Replace every element."""
        old = places.joined(mine.tensors)
        statistics = {
            "g": lambda: old.clone() if self.rule.is_users else old,  # a user's rule may work in place
            "n": old.abs,
            "m": old.abs,
            "model_n": lambda: mine.norms("model", 2.0),
            "model_m": lambda: mine.maximum,
            "w": lambda: places.joined(places.chosen(weights, list(mine.tensors))).abs(),
            "size": lambda: old.new_ones(1),
            "row_mean": lambda: places.row_means(mine.tensors),
        }
        new, memory = self.rule(statistics, now, memory)
        along = (new * (old / before.unsqueeze(1))).sum(1)
        changed = (new != old).to(old.dtype).sum(1)
        post = places.norm(new, 2.0, self.exact)
        return places.separated(new, mine.tensors), post, along, changed, memory, None

    def _kept(self, measured: Measured, mine: Measured, weights: Tensors, now: Now, memory: Memory) -> Clipped:
        """Take or refuse the whole step."""
        rule, before = self.rule, measured.norm[:, 0]
        n = lambda: mine.norms("model", rule.p)  # noqa: E731
        m = lambda: mine.maximum  # noqa: E731
        w = lambda: places.norms(places.chosen(weights, list(mine.tensors)), "model", rule.p, self.exact)  # noqa: E731
        statistics = {"n": n, "m": m, "model_n": n, "model_m": m, "w": w}
        keep, memory = rule(statistics, now, memory)
        keep = keep.reshape(-1)
        refused = (~keep).to(before.dtype)
        post = torch.where(keep, before, 0.0)
        cosine = torch.where(keep, 1.0, (before == 0).to(before.dtype))
        return Clipped(dict(measured.tensors), post, refused, refused, cosine, keep, memory)


def count_places(rule: Rule, tensors: Tensors) -> int:
    """Return the number of places of each of which a rule has a memory."""
    if rule.per in ("step", "model"):
        return 1
    if rule.per == "element":
        return sum(tensor[0].numel() for tensor in tensors.values())
    return len(places.sizes(tensors, rule.per))


def divided_memory(rule: Rule, memory: Memory, tensors: Tensors, groups: Sequence[ThresholdGroup]) -> list[Memory]:
    """Return the memory of each group of tensors."""
    if not memory:
        return [{} for _ in groups]
    counts = [count_places(rule, places.chosen(tensors, group.names)) for group in groups]
    parts = {name: torch.split(value, counts, dim=1) for name, value in memory.items()}
    return [{name: part[number] for name, part in parts.items()} for number in range(len(groups))]


def joined_memory(parts: Sequence[Memory]) -> Memory:
    """The inverse of `divided_memory`."""
    return {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}


def change_weights(
    rule: Rule,
    groups: Sequence[ThresholdGroup],
    params: Tensors,
    old: Tensors,
    grads: Tensors,
    now: Now,
    memory: Memory,
    exact: bool,
) -> tuple[dict[str, Tensor], Tensor, Memory]:
    """Apply a rule to weights [1, *shape]: return all of them, the number of changed elements, and the new memory."""
    memories = divided_memory(rule, memory, params, groups)
    found = [
        _change_group(rule, group.names, params, old, grads, group.now(now), part, exact)
        for group, part in zip(groups, memories, strict=True)
    ]
    after = {name: w for tensors, _, _ in found for name, w in tensors.items()}
    changed = torch.stack([number for _, number, _ in found]).sum(0)
    return {name: after.get(name, w) for name, w in params.items()}, changed, joined_memory([each[2] for each in found])


def _change_group(
    rule: Rule,
    names: Sequence[str],
    params: Tensors,
    old: Tensors,
    grads: Tensors,
    now: Now,
    memory: Memory,
    exact: bool,
) -> tuple[dict[str, Tensor], Tensor, Memory]:
    mine = places.chosen(params, names)
    if rule.per == "element":
        new = places.joined(mine)
        statistics = {
            "new": lambda: new.clone() if rule.is_users else new,
            "w": new.abs,
            "size": lambda: new.new_ones(1),
            "g": lambda: places.joined(places.chosen(grads, names)),
            "old": lambda: places.joined(places.chosen(old, names)),
        }
        result, memory = rule(statistics, now, memory)
        changed = (result != new).to(new.dtype).sum(1)
        after = places.separated(result, mine)
    else:
        sizes = places.sizes(mine, rule.per)
        w = lambda: places.norms(mine, rule.per, rule.p, exact)  # noqa: E731
        coefficient, fired, memory = rule.scaling({"w": w, "size": lambda: sizes}, now, memory)
        after, changed = places.scaled(mine, coefficient, rule.per), (fired * sizes).sum(1)
    return after, changed[0], memory
