"""The tensors of K lanes of one model: weights, gradients and buffers, and the data that the lanes are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from clipbench.core.trial import Training
from clipbench.datasets import Dataset, Stream
from clipbench.engine.model.network import Batch, Network, idle_parameters
from clipbench.engine.model.stacked import StackedTensors


class LaneTensors:
    """What evaluation and the programs of a step read and write."""

    def __init__(self, module: nn.Module, train: Training, dataset: Dataset | None, device: str) -> None:
        self.dataset = dataset
        self.device = torch.device(device)
        self.network = Network(module, train, has_data=dataset is not None)
        module.to(self.device, self.network.dtype)
        self.like = self._part("train") or self._no_data()  # the training data; of a stream, a sample
        self.parts = {"train": self.like, "val": self._part("val"), "test": self._part("test")}
        if isinstance(dataset, Stream):
            self.parts["train"] = None  # the examples that it trained on are not stored
        # Noise on the gradient moves every parameter.
        self.idle = frozenset() if train.noise else idle_parameters(self.network, *self._example())

    def _allocate(self, lanes: int) -> None:
        self.lanes = lanes
        module = self.network.module
        trained = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
        self.params = StackedTensors(trained, lanes, self.network.dtype, self.device)
        self.grads = StackedTensors(trained, lanes, self.network.dtype, self.device)
        fixed = {name: tensor for name, tensor in module.named_parameters() if not tensor.requires_grad}
        self.states = {name: _stacked(tensor, lanes) for name, tensor in [*fixed.items(), *module.named_buffers()]}
        self.loss = torch.zeros(lanes, dtype=self.network.dtype, device=self.device)
        self.seeds: list[int] = [0] * lanes
        self.step = 0  # of the current training; models that draw random numbers draw others at each step

    def start(self, modules: Sequence[nn.Module], seeds: Sequence[int]) -> None:
        """Give every lane its initial state."""
        self.seeds = list(seeds)
        self.step = 0
        for lane, module in enumerate(modules):
            tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            self.params.set_lane(lane, {name: tensors[name].detach() for name in self.params})
            for name, stack in self.states.items():
                stack[lane].copy_(tensors[name].detach())

    def copy_from(self, other: LaneTensors, lanes: Sequence[int]) -> None:
        """Continue with some lanes of another."""
        self.seeds = [other.seeds[lane] for lane in lanes]
        self.step = other.step
        for mine, theirs in self._pairs(other):
            mine.copy_(theirs[lanes])

    def copy_back(self, other: LaneTensors, lanes: Sequence[int]) -> None:
        """Copy all lanes of another back to their positions here."""
        self.step = other.step
        for mine, theirs in self._pairs(other):
            mine[lanes] = theirs

    def named(self, tensors: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], Sequence[Tensor]]:
        """Split the inputs of a program into parameters by name, states by name, and the rest."""
        params = dict(zip(self.params, tensors, strict=False))
        states = dict(zip(self.states, tensors[len(params) :], strict=False))
        return params, states, tensors[len(params) + len(states) :]

    def _pairs(self, other: LaneTensors) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield weights and buffers of both, [lanes, ...]."""
        for name, block in self.params.items():
            yield block, other.params[name]
        for name, stack in self.states.items():
            yield stack, other.states[name]

    def _part(self, name: str) -> Batch | None:
        arrays = getattr(self.dataset, name, None)
        return None if arrays is None else (self._tensor(arrays[0]), self._tensor(arrays[1]))

    def _no_data(self) -> Batch:
        """Return a placeholder batch for an objective without data."""
        nothing = torch.zeros(1, device=self.device, dtype=self.network.dtype)
        return nothing, nothing

    def _tensor(self, array: object) -> Tensor:
        tensor = torch.as_tensor(array)
        return tensor.to(self.device, self.network.dtype if tensor.is_floating_point() else tensor.dtype)

    def _example(self) -> Batch:
        x, y = self.like
        return x[:4], y[:4]


def _stacked(tensor: Tensor, lanes: int) -> Tensor:
    return tensor.detach().expand(lanes, *tensor.shape).clone()
