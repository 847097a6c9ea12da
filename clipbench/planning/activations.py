"""The memory of a step beside weights and gradients: what the forward pass keeps for the backward pass."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from clipbench.core import generators
from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.model.network import Batch, Network


def activations(network: Network, example: Batch, batch: int) -> int:
    """Elements that a step of a whole batch keeps for its backward pass, counted on a few examples."""
    own = {parameter.data_ptr() for parameter in network.module.parameters()}
    kept: dict[int, Tensor] = {}  # by their memory: views share it, and what is kept here is not used again

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    count = saved_tensors_hooks(keep, lambda tensor: tensor)
    with generators.preserved(), layers_for_many(), count:
        network.plain_loss(*example)
    elements = sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in kept.values())
    return elements * batch // max(len(example[0]), 1)
