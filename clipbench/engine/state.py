"""The state of training: tensors by name.

`params.<name>` and `buffers.<name>` are those of the model. A group of lanes, which share a rule and an optimizer, has
`<group>/slots.<slot>.<name>` of the optimizer, `<group>/memory.<name>` of the rule and `<group>/t`, the steps taken.
`status.<name>` says how lanes ended, and `steps` holds the statistics of all steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

STEPS = "steps"  # of which only those of the steps taken are saved


@dataclass
class State:
    """Tensors by name, and the number of steps taken. Programs are made for these tensors: none ever moves."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    generators: dict[str, torch.Generator] = field(default_factory=dict)
    step: int = 0

    def add(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        self.tensors |= {prefix + name: tensor for name, tensor in tensors.items()}

    @property
    def saved_names(self) -> set[str]:
        """The names that `save` returns and `load` needs."""
        return {*self.tensors, *(f"generators.{name}" for name in self.generators), "step"}

    def save(self) -> dict[str, Tensor]:
        """Return all tensors on the CPU, as copies, the states of generators, and the number of steps."""
        tensors = {
            name: (tensor[: self.step] if name == STEPS else tensor).detach().cpu().clone()
            for name, tensor in self.tensors.items()
        }
        generators = {f"generators.{name}": generator.get_state() for name, generator in self.generators.items()}
        return {**tensors, **generators, "step": torch.tensor(self.step)}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Continue where `save` was called."""
        self.step = int(saved["step"])
        for name, tensor in self.tensors.items():
            (tensor[: self.step] if name == STEPS else tensor).copy_(saved[name])
        for name, generator in self.generators.items():
            generator.set_state(saved[f"generators.{name}"])
