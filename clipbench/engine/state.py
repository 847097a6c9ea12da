"""The state of training: tensors by name, in which each lane has its place.

`params.<name>` and `buffers.<name>` are those of the model. A group of lanes, which share a rule and an optimizer, has
`<group>/slots.<slot>.<name>` of the optimizer, `<group>/memory.<name>` of the rule and `<group>/t`, the steps taken.
`status.<name>` says how lanes ended, and `steps` holds the statistics of all steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Leaf:
    """A tensor, and which lanes it holds along which axis; without an axis, all lanes share it."""

    tensor: Tensor
    lanes: Sequence[int] = ()
    axis: int | None = 0

    def of(self, lanes: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Return the tensors of those of some lanes that it holds, and their places among these lanes."""
        held = {lane: place for place, lane in enumerate(self.lanes)}
        places = [place for place, lane in enumerate(lanes) if lane in held]
        rows = torch.tensor([held[lanes[place]] for place in places], dtype=torch.long, device=self.tensor.device)
        return self.tensor.index_select(self.axis or 0, rows), places


@dataclass
class State(Mapping[str, Leaf]):
    """Leaves by name, and the number of steps that were taken. Programs are made for these tensors: none ever moves."""

    leaves: dict[str, Leaf] = field(default_factory=dict)
    generators: dict[str, torch.Generator] = field(default_factory=dict)
    step: int = 0

    def __getitem__(self, name: str) -> Leaf:
        return self.leaves[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.leaves)

    def __len__(self) -> int:
        return len(self.leaves)

    def add(self, prefix: str, tensors: Mapping[str, Tensor], lanes: Sequence[int], axis: int | None = 0) -> None:
        for name, tensor in tensors.items():
            self.leaves[prefix + name] = Leaf(tensor, lanes, axis)

    def select(self, lanes: Sequence[int]) -> State:
        """Return a copy of some lanes, numbered anew."""
        chosen: dict[str, Leaf] = {}
        for name, leaf in self.items():
            if leaf.axis is None:
                chosen[name] = Leaf(leaf.tensor.clone(), (), None)
            else:
                tensor, places = leaf.of(lanes)
                chosen[name] = Leaf(tensor, places, leaf.axis)
        generators = {name: torch.Generator() for name in self.generators}
        for name, generator in generators.items():
            generator.set_state(self.generators[name].get_state())
        return State(chosen, generators, self.step)

    def put(self, other: State, lanes: Sequence[int]) -> None:
        """Copy all lanes of another state to these lanes, and what lanes share."""
        self.step = other.step
        for name in self.generators.keys() & other.generators.keys():
            self.generators[name].set_state(other.generators[name].get_state())
        for name, leaf in self.items():
            theirs = other.get(name)
            if theirs is None:
                continue
            if leaf.axis is None:
                leaf.tensor.copy_(theirs.tensor)
                continue
            held = {lane: place for place, lane in enumerate(leaf.lanes)}
            pairs = [(held[lanes[lane]], place) for place, lane in enumerate(theirs.lanes) if lanes[lane] in held]
            if pairs:
                to, places = (torch.tensor(side, device=leaf.tensor.device) for side in zip(*pairs, strict=True))
                leaf.tensor.index_copy_(leaf.axis, to, theirs.tensor.index_select(leaf.axis, places).to(leaf.tensor))

    @property
    def saved_names(self) -> set[str]:
        """The names that `save` returns and `load` needs."""
        return {*self, *(f"generators.{name}" for name in self.generators), "step"}

    def save(self) -> dict[str, Tensor]:
        """Return all tensors on the CPU, as copies, the states of generators, and the number of steps."""
        tensors = {name: leaf.tensor.detach().cpu().clone() for name, leaf in self.items()}
        generators = {f"generators.{name}": generator.get_state() for name, generator in self.generators.items()}
        return {**tensors, **generators, "step": torch.tensor(self.step)}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Continue where `save` was called."""
        for name, leaf in self.items():
            leaf.tensor.copy_(saved[name])
        for name, generator in self.generators.items():
            generator.set_state(saved[f"generators.{name}"])
        self.step = int(saved["step"])
