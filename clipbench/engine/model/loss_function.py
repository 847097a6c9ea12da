"""The loss of a batch and its gradient, for one lane, as a pure function of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

from torch import Tensor
from torch.func import grad_and_value

from clipbench.engine.inputs.random_draws import Draw, Given
from clipbench.engine.layers.replace import layers_for_many
from clipbench.engine.model.network import Batch, Network

Tensors = Mapping[str, Tensor]


class LossAndGradient(NamedTuple):
    """What a training step of a model computes before its gradient is clipped."""

    loss: Tensor
    gradient: Tensors
    states: Tensors  # the buffers that the model has changed


class LossFunction:
    """Call it with parameters, states, a batch, and the numbers that the model and the loss draw."""

    def __init__(self, network: Network, changing: Sequence[str], draws: Sequence[Draw] = ()) -> None:
        """`changing` are the buffers that training changes."""
        self._network, self._changing, self._draws = network, changing, draws

    def __call__(self, params: Tensors, states: Tensors, batch: Batch, numbers: Sequence[Tensor]) -> LossAndGradient:
        states = {**states, **{name: states[name].clone() for name in self._changing}}
        with layers_given(self._draws, numbers):
            grads, (loss, after) = grad_and_value(self._network.loss, has_aux=True)(params, states, *batch)
        return LossAndGradient(loss, grads, {name: after[name] for name in self._changing})


@contextmanager
def layers_given(draws: Sequence[Draw], numbers: Sequence[Tensor]) -> Iterator[None]:
    """Call models in this context with layers that are fast for many lanes, and with numbers for what they draw."""
    with layers_for_many(), Given(draws, numbers) if draws else nullcontext():
        yield
