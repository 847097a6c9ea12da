"""A model, its loss and its metrics as pure functions of weights, for the vectorised and the looped path."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clipbench.core.trial import Component, Training
from clipbench.datasets import Dataset
from clipbench.plugins import registry

Tensors = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]  # inputs and targets
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build_model(component: Component, dataset: Dataset | None, seed: int) -> nn.Module:
    """Return the initial model of a seed: the model function is called after `torch.manual_seed(seed)`, in float32."""
    plugin = registry.of("model", component)
    given = {name: getattr(dataset, name) for name in plugin.given} if dataset else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = plugin.function(**given, **component.as_dict())
    if not isinstance(module, nn.Module):
        raise TypeError(f"it must return a torch.nn.Module, got {type(module).__name__}")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError("it has no parameters to train")
    return module


class Network:
    """The forward pass, objective and measures of one model, for given weights."""

    def __init__(self, module: nn.Module, train: Training, has_data: bool) -> None:
        self.module = module
        self.has_data = has_data
        self.dtype = DTYPES[train.dtype]
        self._l1, self._l2 = train.l1, train.l2
        self.loss_is_output = train.loss.name == "output"
        self._loss = None if self.loss_is_output else _measure("loss", train.loss)
        self._metrics = [_measure("metric", metric) for metric in train.metrics]
        self.names = train.measures  # of the measures

    def forward(self, params: Tensors, states: Tensors, x: Tensor) -> Tensor:
        tensors = {**params, **states}
        output = functional_call(self.module, tensors, (x,) if self.has_data else ())
        for name, state in states.items():
            if tensors[name] is not state:  # the model replaced its buffer: `self.seen = self.seen + 1`
                state.copy_(tensors[name].detach())
        if not isinstance(output, Tensor):
            raise TypeError(f"the model must return a tensor, got {type(output).__name__}")
        return output

    def loss(self, params: Tensors, states: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """Return the training loss in train mode: the loss of the batch, and the L1 and L2 penalties."""
        self.module.train()
        loss = self._objective(self.forward(params, states, x), y)
        if self._l1:
            loss = loss + self._l1 * torch.stack([weights.abs().sum() for weights in params.values()]).sum()
        if self._l2:
            loss = loss + self._l2 * torch.stack([weights.square().sum() for weights in params.values()]).sum()
        return loss

    def predict(self, params: Tensors, states: Tensors, x: Tensor) -> Tensor:
        """Return the output in eval mode."""
        self.module.eval()
        return self.forward(params, states, x)

    def measures(self, output: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Return the loss, then the metrics, of an output in eval mode."""
        return (self._objective(output, y), *(metric(output, y).to(self.dtype) for metric in self._metrics))

    def _objective(self, output: Tensor, y: Tensor) -> Tensor:
        loss = self._loss(output, y) if self._loss else output
        if loss.numel() != 1:
            raise ValueError(f"the loss must be a scalar, got the shape {tuple(loss.shape)}")
        return loss.reshape(())


@contextmanager
def fork_seeded_rng(seed: int, step: int) -> Iterator[None]:
    """Random numbers of a seed and step, independent of those that draw batches; lanes of a seed share them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((seed * 1_000_003 + step) % 2**63)
        yield


def idle_parameters(network: Network, x: Tensor, y: Tensor) -> frozenset[str]:
    """Return the parameters that do not influence the loss: they have no gradient, and no optimizer changes them."""
    module = copy.deepcopy(network.module)  # training may change its buffers
    twin = copy.copy(network)
    twin.module = module
    params = {name: p.detach().requires_grad_(p.requires_grad) for name, p in module.named_parameters()}
    trained = [name for name, p in params.items() if p.requires_grad]
    with torch.random.fork_rng(devices=[]):
        loss = twin.loss(params, dict(module.named_buffers()), x, y)
    grads = torch.autograd.grad(loss, [params[name] for name in trained], allow_unused=True)
    return frozenset(name for name, gradient in zip(trained, grads, strict=True) if gradient is None)


def higher_is_better(train: Training, name: str) -> bool:
    """Whether a higher value of a measure is better: never for the loss; a metric declares its direction."""
    named: dict[str, Component] = {metric.name.rpartition(":")[2]: metric for metric in train.metrics}
    return name in named and registry.of("metric", named[name]).higher_is_better


def _measure(kind: str, component: Component) -> Callable[[Tensor, Tensor], Tensor]:
    plugin = registry.of(kind, component)
    options = component.as_dict()

    def measure(output: Tensor, target: Tensor) -> Tensor:
        value = plugin.function(output, target, **options)
        if not isinstance(value, Tensor):
            name = component.name.rpartition(":")[2]
            raise TypeError(f"{name} must return a scalar tensor, got {type(value).__name__}")
        return value

    return measure
