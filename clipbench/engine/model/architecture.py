"""The architecture of a module: what the models of all seeds must have in common, at every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clipbench.engine.model.python_state import Snapshot, differing, snapshot
from clipbench.errors import Unsupported


@dataclass(frozen=True)
class Architecture:
    """The parameters and buffers of a module, and its state."""

    parts: Mapping[str, tuple[torch.Size, bool]]  # the shape of each parameter and buffer, and whether it is trained
    state: Snapshot

    @classmethod
    def of(cls, module: nn.Module) -> Architecture:
        parts = {name: (tensor.shape, tensor.requires_grad) for name, tensor in tensors_in(module).items()}
        return cls(parts, snapshot(module))

    def attributes_that_differ(self, other: Architecture) -> list[str]:
        return [path for path in differing(self.state, other.state) if path not in self.parts]

    def refuse_other(self, other: Architecture, attributes: bool) -> None:
        """Refuse a model of another architecture; with `attributes`, one with other values of them too."""
        different = [name for name in {**self.parts, **other.parts} if self.parts.get(name) != other.parts.get(name)]
        if different:
            text = f"`{different[0]}` has another shape for another seed, or is trained for one seed only."
            raise Unsupported(text, "Make it an option of the model; a seed decides values, not the architecture.")
        if attributes and (paths := self.attributes_that_differ(other)):
            text = f"its attribute `{paths[0]}` depends on the seed, but not for the first two."
            raise Unsupported(text, "Keep it in a buffer: `self.register_buffer(name, tensor)`.")


def refuse_other_parameters(trained: Mapping[str, nn.Parameter], module: nn.Module) -> None:
    """Refuse a module that has changed which of its parameters are trained, or has put others in their place."""
    now = trained_parameters(module)
    if changes := trained.keys() ^ now.keys():
        text = f"training changes whether `{min(changes)}` is trained."
        raise Unsupported(text, "Decide it before training: call `requires_grad_` in the constructor.")
    if replaced := [name for name, parameter in trained.items() if now[name] is not parameter]:
        text = f"training replaces `{replaced[0]}` by another parameter, which no optimizer knows."
        raise Unsupported(text, "Change its values under `torch.no_grad()`.")


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def tensors_in(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; one that is used twice has one name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
