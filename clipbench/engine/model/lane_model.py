"""The module of one lane, for lanes that are trained one after another: called as a plain loop calls it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clipbench.engine.model.architecture import refuse_other_parameters, trained_parameters
from clipbench.engine.model.network import Batch, Network, backward
from clipbench.engine.model.python_state import leaves
from clipbench.errors import Unsupported, described


class LaneModel:
    """A module whose weights are views of the stacked ones; its buffers and attributes are its own."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._trained = trained_parameters(network.module)
        # To walk through a module takes a twentieth of a step of a small model: where each parameter is, and whether
        # it is trained.
        self._places = [
            (part._parameters, name, parameter, parameter.requires_grad)
            for part in network.module.modules()
            for name, parameter in part._parameters.items()
            if parameter is not None
        ]
        self.without_gradient: frozenset[str] = frozenset()  # the parameters that have no gradient at this step

    @property
    def module(self) -> nn.Module:
        return self._network.module

    def bind(self, weights: Mapping[str, Tensor]) -> None:
        """Use these weights from now on."""
        for name, parameter in self._trained.items():
            parameter.data = weights[name]

    def loss_and_gradients(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss on a batch, which the model may change, and its gradient: zeros where it has none."""
        for _, _, parameter, _ in self._places:
            parameter.grad = None
        loss = self._network.plain_loss(*batch)
        backward(loss)
        if any(held.get(name) is not p or p.requires_grad != trained for held, name, p, trained in self._places):
            refuse_other_parameters(self._trained, self.module)
        grads = {name: p.grad.to_dense() for name, p in self._trained.items() if p.grad is not None}
        self.without_gradient = frozenset(self._trained.keys() - grads.keys())
        return loss.detach(), grads | {name: torch.zeros_like(self._trained[name]) for name in self.without_gradient}

    def output(self, x: Tensor, on_copy: bool) -> Tensor:
        """Return the output in eval mode. Nothing that a copy changes in itself reaches training."""
        network = self._network.of(_copied(self.module)) if on_copy else self._network
        return network.plain_output(x.clone())


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy; tensors that it has computed and kept are copied as values."""
    kept = (value for _, value in leaves(module) if isinstance(value, Tensor) and not value.is_leaf)
    try:
        return copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in kept})
    except Exception as error:
        text = f"evaluation changes the model, which cannot be copied: {described(error)}"
        raise Unsupported(text, "Change it `if self.training` alone.") from error
