"""A model, its loss and its metrics as pure functions of weights: what the vectorised and the looped path both call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clipbench.core.trial import Component, Training
from clipbench.datasets import Dataset
from clipbench.plugins import registry

Tensors = Mapping[str, Tensor]
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build_model(component: Component, dataset: Dataset | None, seed: int) -> nn.Module:
    """A trial's initial state: what its model function makes after `torch.manual_seed(seed)`, in float32."""
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
    """One model's forward pass, objective and measures, for weights that are handed in."""

    def __init__(self, module: nn.Module, train: Training, has_data: bool) -> None:
        self.module = module
        self.has_data = has_data
        self.dtype = DTYPES[train.dtype]
        self._l1, self._l2 = train.l1, train.l2
        self.loss_is_output = train.loss.name == "output"
        self._loss = None if self.loss_is_output else _measure("loss", train.loss)
        self._metrics = [_measure("metric", metric) for metric in train.metrics]

    def forward(self, params: Tensors, states: Tensors, x: Tensor) -> Tensor:
        tensors = {**params, **states}
        output = functional_call(self.module, tensors, (x,) if self.has_data else ())
        for name, state in states.items():
            if tensors[name] is not state:  # the model put a new tensor there: `self.seen = self.seen + 1`
                state.copy_(tensors[name].detach())
        if not isinstance(output, Tensor):
            raise TypeError(f"the model must return a tensor, got {type(output).__name__}")
        return output

    def loss(self, params: Tensors, states: Tensors, x: Tensor, y: Tensor) -> Tensor:
        """What training descends on, in train mode: of the batch, and of the size of the weights."""
        self.module.train()
        loss = self._objective(self.forward(params, states, x), y)
        if self._l1:
            loss = loss + self._l1 * torch.stack([weights.abs().sum() for weights in params.values()]).sum()
        if self._l2:
            loss = loss + self._l2 * torch.stack([weights.square().sum() for weights in params.values()]).sum()
        return loss

    def predict(self, params: Tensors, states: Tensors, x: Tensor) -> Tensor:
        """The output in eval mode."""
        self.module.eval()
        return self.forward(params, states, x)

    def measures(self, output: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The loss, then the metrics, of an output in eval mode."""
        return (self._objective(output, y), *(metric(output, y).to(self.dtype) for metric in self._metrics))

    def _objective(self, output: Tensor, y: Tensor) -> Tensor:
        loss = self._loss(output, y) if self._loss else output
        if loss.numel() != 1:
            raise ValueError(f"the loss must be one number, got the shape {tuple(loss.shape)}")
        return loss.reshape(())


def idle_parameters(network: Network, x: Tensor, y: Tensor) -> frozenset[str]:
    """Parameters that the loss never reaches: torch gives them no gradient, and no optimizer moves them."""
    module = copy.deepcopy(network.module)  # whose buffers training may change
    twin = copy.copy(network)
    twin.module = module
    params = {name: p.detach().requires_grad_(p.requires_grad) for name, p in module.named_parameters()}
    trained = [name for name, p in params.items() if p.requires_grad]
    with torch.random.fork_rng(devices=[]):
        loss = twin.loss(params, dict(module.named_buffers()), x, y)
    grads = torch.autograd.grad(loss, [params[name] for name in trained], allow_unused=True)
    return frozenset(name for name, gradient in zip(trained, grads, strict=True) if gradient is None)


def higher_is_better(train: Training, name: str) -> bool:
    """A loss is better when it is lower; a metric says its direction."""
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
