"""What a rule remembers of each of its places from step to step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from clipbench.engine.clipping.clip import count_places
from clipbench.engine.clipping.measured import Measured
from clipbench.engine.clipping.rule import Memory, Rule, initial_state
from clipbench.engine.clipping.threshold_groups import ThresholdGroup

# Parameters that have places of their own, or share one, and the number of these places.
Places = tuple[tuple[str, ...], int]


def initial_memory(
    rule: Rule, options: Mapping[str, object], groups: Sequence[ThresholdGroup], shapes: Mapping[str, torch.Size]
) -> Memory:
    """Return the memory before the first step, on the CPU: [1, places, ...]."""
    count = sum(number for _, number in _places(rule, groups, shapes))
    return initial_state(rule.init, options, torch.empty(1, count))


def extended_memory(
    rule: Rule,
    new: Memory,
    new_groups: Sequence[ThresholdGroup],
    old: Memory,
    old_groups: Sequence[ThresholdGroup],
    shapes: Mapping[str, torch.Size],
) -> Memory:
    """Return the new memory, with what the old one has of parameters that it knows."""
    known, position = dict[str, tuple[int, int]](), 0
    for names, number in _places(rule, old_groups, shapes):
        known |= dict.fromkeys(names, (position, position + number))
        position += number
    memory, position = {name: value.clone() for name, value in new.items()}, 0
    for names, number in _places(rule, new_groups, shapes):
        if (span := next((known[name] for name in names if name in known), None)) is not None:
            for name, value in memory.items():
                value[:, position : position + number] = old[name][:, span[0] : span[1]]
        position += number
    return memory


def _places(rule: Rule, groups: Sequence[ThresholdGroup], shapes: Mapping[str, torch.Size]) -> Iterator[Places]:
    for group in groups:
        if rule.per in ("step", "model"):
            yield group.names, 1
        else:
            for name in group.names:
                tensor = torch.empty(1, *shapes[name], device="meta")
                yield (name,), count_places(rule, Measured({name: tensor}, exact=True))
