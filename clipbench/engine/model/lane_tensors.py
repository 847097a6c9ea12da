"""The tensors of K lanes of one model: weights, gradients and buffers, and the data that the lanes are trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from clipbench.core import generators
from clipbench.core.trial import Component, Training
from clipbench.datasets import Dataset
from clipbench.engine.inputs.random_draws import Draw, Found
from clipbench.engine.lane_seeds import LaneSeeds
from clipbench.engine.model.architecture import Architecture
from clipbench.engine.model.examination import examine
from clipbench.engine.model.lane_model import LaneModel
from clipbench.engine.model.network import Batch, Network, build_model, tensors_of
from clipbench.engine.model.stacked import StackedTensors

SAMPLE = 64  # examples that programs are tried on where batches are augmented


class LaneTensors:
    """What evaluation and the programs of a step read and write.

    Lanes that are trained one after another have a module each, and buffers are theirs: `states` is empty.
    """

    def __init__(self, component: Component, train: Training, dataset: Dataset | None, device: str) -> None:
        self.dataset, self._average = dataset, train.ema is not None
        self.device = torch.device(device)
        self.examination = examine(component, train, dataset)
        self.network = Network(build_model(component, dataset, seed=0), train, has_data=dataset is not None)
        self.network.module.to(self.device, self.network.dtype)
        self._draws: dict[int, list[Draw]] = {}
        self._component, self._architecture = component, Architecture.of(self.network.module)
        self.like = self._part("train") or self._no_data(self.device)  # the training data, or some; not augmented
        self.sample = self._sample() if dataset is not None and dataset.augment else self.like  # as it is trained on
        self.parts = {"train": self.like, "val": self._part("val"), "test": self._part("test")}
        if dataset is not None and not dataset.in_memory:
            self.parts["train"] = None

    @property
    def loop_reason(self) -> str:
        """Why lanes are trained one after another; empty if they are one tensor program."""
        return self.examination.loop_reason

    @property
    def evaluated(self) -> StackedTensors:
        """The weights that are evaluated."""
        return self.params if self.averages is None else self.averages

    def draws(self, examples: int) -> list[Draw]:
        """Return what a model and its loss draw in training, for a batch of so many examples."""
        if self.loop_reason or not self.examination.draws:
            return []
        if examples not in self._draws:
            data, dtype = self.dataset, self.network.dtype
            x, y = self._no_data("cpu") if data is None else data.first_batch(dtype, examples)
            self._draws[examples] = self._found(lambda network: network.plain_loss(x, y))
        return self._draws[examples]

    def draws_in_evaluation(self, name: str) -> list[Draw]:
        """Return what a model draws in eval mode, for a whole part of the data."""
        if self.loop_reason or not self.examination.draws_in_evaluation:
            return []
        part = self.parts[name]
        x, _ = self._on_cpu(name, len(part[0]) if part else 0)
        return self._found(lambda network: network.plain_output(x))

    def _found(self, call: Callable[[Network], object]) -> list[Draw]:
        """Return what is drawn in a plain call, on the CPU, whatever the device is."""
        network = self.network.of(build_model(self._component, self.dataset, seed=0).to(self.network.dtype))
        with generators.preserved(), Found() as found:
            call(network)
        draws: list[Draw] = found.draws
        return draws

    def _allocate(self, lanes: int, parts: int) -> None:
        """Allocate the tensors of the lanes; gradients and losses are those of each part of a batch."""
        self.lanes = lanes
        module = self.network.module
        trained = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
        self.params = StackedTensors(trained, lanes, self.network.dtype, self.device)
        self.averages = None  # of the weights, if these are what is evaluated
        if self._average:
            self.averages = StackedTensors(trained, lanes, self.network.dtype, self.device)
        self.grads = {name: block.new_zeros(lanes, parts, *block.shape[1:]) for name, block in self.params.items()}
        fixed = {name: tensor for name, tensor in module.named_parameters() if not tensor.requires_grad}
        states = {} if self.loop_reason else {**fixed, **dict(module.named_buffers())}
        self.states = {name: _stacked(tensor, lanes) for name, tensor in states.items()}
        self.models: list[LaneModel] = []  # of the lanes, if they are trained one after another
        self.loss = torch.zeros(lanes, parts, dtype=self.network.dtype, device=self.device)
        self.seeds = LaneSeeds(lanes, self.device)
        self.step = 0  # of the current training; models that draw random numbers draw others at each step

    def start(self, seeds: Sequence[int]) -> None:
        """Give every lane the initial model of its seed, and no gradient: programs are tried on what stands there."""
        self.seeds.set(seeds)
        self.step = 0
        for block in (self.loss, *self.grads.values()):
            block.zero_()
        once = {} if self.loop_reason else {seed: self._built(seed) for seed in set(seeds)}
        modules = [once[seed] if once else self._built(seed) for seed in seeds]
        for lane, module in enumerate(modules):
            tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            self.params.set_lane(lane, {name: tensors[name].detach() for name in self.params})
            for name, stack in self.states.items():
                stack[lane].copy_(tensors[name].detach())
        self.models = [LaneModel(self.network.of(module)) for module in modules] if self.loop_reason else []
        self._bind_models()

    def parameters(self, lane: int) -> Iterator[tuple[str, Tensor, bool]]:
        """Yield the name and the weights of every parameter of a lane, and whether it is trained."""
        module = self.models[lane].module if self.models else self.network.module
        for name, parameter in module.named_parameters():
            trained = name in self.params
            weights = self.params[name][lane] if trained else parameter if self.models else self.states[name][lane]
            yield name, weights.detach(), trained

    def without_gradient(self, lane: int) -> frozenset[str]:
        """Return the parameters of a lane that have no gradient at this step: no optimizer changes them."""
        return self.models[lane].without_gradient if self.examination.gradients_vary else self.examination.idle

    def _built(self, seed: int) -> nn.Module:
        """Return the initial model of a seed, which must be of the same kind as that of the others."""
        module = build_model(self._component, self.dataset, seed).to(self.device, self.network.dtype)
        self._architecture.refuse_other(Architecture.of(module), attributes=not self.loop_reason)
        return module

    def _bind_models(self) -> None:
        for lane, model in enumerate(self.models):
            model.bind(self.params.lane(lane))

    def named(self, tensors: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], Sequence[Tensor]]:
        """Split the inputs of a program into parameters by name, states by name, and the rest."""
        params = dict(zip(self.params, tensors, strict=False))
        states = dict(zip(self.states, tensors[len(params) :], strict=False))
        return params, states, tensors[len(params) + len(states) :]

    def _on_cpu(self, name: str, examples: int) -> Batch:
        """Return so many examples of a part; if it has fewer, some of them again."""
        if self.dataset is None:
            return self._no_data("cpu")
        x, y = getattr(self.dataset, name)
        rows = np.arange(examples) % len(x)
        return tensors_of((x[rows], y[rows]), self.network.dtype)

    def _part(self, name: str) -> Batch | None:
        arrays = getattr(self.dataset, name, None)
        return None if arrays is None else tensors_of(arrays, self.network.dtype, self.device)

    def _sample(self) -> Batch:
        """Return some examples of training, augmented."""
        assert self.dataset is not None
        x, y = self.dataset.first_batch(self.network.dtype, SAMPLE)
        return x.to(self.device), y.to(self.device)

    def _no_data(self, device: torch.device | str) -> Batch:
        """Return a placeholder batch for an objective without data."""
        nothing = torch.zeros(1, device=device, dtype=self.network.dtype)
        return nothing, nothing


def _stacked(tensor: Tensor, lanes: int) -> Tensor:
    return tensor.detach().expand(lanes, *tensor.shape).clone()
