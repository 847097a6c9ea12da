"""What a rule does to tensors at its places, be they gradients, updates or weights, and what is recorded of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipbench.engine.clipping import places
from clipbench.engine.clipping.measured import Measured
from clipbench.engine.clipping.places import Tensors
from clipbench.engine.clipping.rule import Memory, Now, Rule, Statistics
from clipbench.engine.clipping.threshold_groups import ThresholdGroup


@dataclass
class Clipped:
    """Tensors after a rule, and what it did to each row, [rows]."""

    tensors: Tensors
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

    def __call__(self, measured: Measured, weights: Measured, now: Now, memory: Memory) -> Clipped:
        """Apply the rule to tensors that were measured; the weights are those of the same names."""
        rule = self.rule
        if rule.per == "step":
            return self._kept(measured, weights, now, memory)
        change = self._elements if rule.per == "element" else self._scaled
        memories = divided_memory(rule, memory, measured, self.groups)
        before = measured.norm[:, 0]
        found = [
            change(measured.of(group.names), measured, weights.of(group.names), group.now(now), part)
            for group, part in zip(self.groups, memories, strict=True)
        ]
        new, post, along, changed, memory, fired = found[0]
        if len(found) > 1:
            news, posts, alongs, changes, parts, _ = zip(*found, strict=True)
            new, memory = {name: t for tensors in news for name, t in tensors.items()}, joined_memory(parts)
            post, along, changed = places.norm(torch.stack(posts, 1), 2.0, self.exact), sum(alongs), sum(changes)
        names = [name for group in self.groups for name in group.names]
        if len(names) < len(measured.names):
            rest = measured.rest(names)
            post = places.norm(torch.stack([post, rest], 1), 2.0, self.exact)
            along = along + rest * (rest / before)
        if fired is None:
            fired, fraction = (changed > 0).to(post.dtype), changed / measured.size
            # 1 where the gradient was 0, 0 where clipping left nothing of it.
            nothing = (before == 0).to(post.dtype)
            cosine = torch.where((before > 0) & (post > 0), along / post, nothing)
        else:
            fraction, cosine = fired, along
        return Clipped(measured.merged(new), post, fired, fraction, cosine, None, memory)

    def _scaled(self, mine: Measured, whole: Measured, weights: Measured, now: Now, memory: Memory) -> Any:
        """Multiply every place by its coefficient."""
        rule, before = self.rule, whole.norm[:, 0]
        coefficient, fired, memory = rule.scaling(self.statistics_of_places(mine, weights), now, memory)
        fired = fired.to(before.dtype)
        if rule.per == "model" and mine is whole:
            after = coefficient[:, 0] * before  # a user's rule may return a negative coefficient: it turns the gradient
            along = torch.where(before == 0, 1.0, after.sign())
            return mine.scaled(coefficient, rule.per), after.abs(), along, None, memory, fired[:, 0]
        n = mine.norms(rule.per, 2.0)
        changed = (fired * mine.sizes(rule.per)).sum(1)
        along = (coefficient * n * (n / before.unsqueeze(1))).sum(1)
        post = places.norm(coefficient * n, 2.0, self.exact)
        return mine.scaled(coefficient, rule.per), post, along, changed, memory, None

    def _elements(self, mine: Measured, whole: Measured, weights: Measured, now: Now, memory: Memory) -> Any:
        """Replace every element."""
        old, before = mine.elements, whole.norm
        new, memory = self.rule(self.statistics_of_elements(mine, old, weights), now, memory)
        along, changed, post = mine.dot(new, old / before), mine.count_changed(new, old), mine.norm_of(new)
        return mine.replaced(new), post, along, changed, memory, None

    def _kept(self, whole: Measured, weights: Measured, now: Now, memory: Memory) -> Clipped:
        """Take or refuse the whole step."""
        names, before = self.groups[0].names, whole.norm[:, 0]
        keep, memory = self.rule(self.statistics_of_places(whole.of(names), weights.of(names)), now, memory)
        keep = keep.reshape(-1)
        refused = (~keep).to(before.dtype)
        post = torch.where(keep, before, 0.0)
        cosine = torch.where(keep, 1.0, (before == 0).to(before.dtype))
        return Clipped(whole.merged({}), post, refused, refused, cosine, keep, memory)

    def statistics_of_places(self, mine: Measured, weights: Measured) -> Statistics:
        """Return what a rule on norms may ask for."""
        rule = self.rule
        per = "model" if rule.per == "step" else rule.per
        return {
            "n": lambda: mine.norms(per, rule.p),
            "model_n": lambda: mine.norms("model", rule.p),
            "model_m": lambda: mine.maximum,
            "m": lambda: mine.norms(per, math.inf),
            "w": lambda: weights.norms(per, rule.p),
            "size": lambda: mine.sizes(per),
        }

    def statistics_of_elements(self, mine: Measured, old: Tensor, weights: Measured) -> Statistics:
        """Return what a rule on elements, which are `old`, may ask for."""
        return {
            "g": lambda: old.clone() if self.rule.is_users else old,  # a user's rule may work in place
            "n": old.abs,
            "m": old.abs,
            "model_n": lambda: mine.norms("model", 2.0),
            "model_m": lambda: mine.maximum,
            "w": lambda: weights.elements.abs(),
            "size": lambda: old.new_ones(1),
            "row_mean": lambda: mine.row_means,
        }


def count_places(rule: Rule, measured: Measured) -> int:
    """Return the number of places of each of which a rule has a memory."""
    if rule.per in ("step", "model"):
        return 1
    return measured.size if rule.per == "element" else len(measured.sizes(rule.per))


def divided_memory(rule: Rule, memory: Memory, measured: Measured, groups: Sequence[ThresholdGroup]) -> list[Memory]:
    """Return the memory of each group of tensors."""
    if len(groups) == 1 or not memory:
        return [memory] * len(groups)
    counts = [count_places(rule, measured.of(group.names)) for group in groups]
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
    memories = divided_memory(rule, memory, Measured(params, exact), groups)
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
