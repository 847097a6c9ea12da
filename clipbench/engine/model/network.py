"""A model with its loss and metrics: as pure functions of its weights, or called as it is."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clipbench.core import generators
from clipbench.core.trial import Component, Training
from clipbench.datasets import Dataset
from clipbench.datasets.dataset import Arrays
from clipbench.errors import Unsupported, blamed, described
from clipbench.plugins import registry

Tensors = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]  # inputs and targets
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build_model(component: Component, dataset: Dataset | None, seed: int) -> nn.Module:
    """Return the initial model of a seed: all generators are seeded, then the model function is called, in float32."""
    plugin = registry.of("model", component)
    given = {name: getattr(dataset, name) for name in plugin.given} if dataset else {}
    with generators.preserved():
        generators.seed_all(seed)
        module = plugin.function(**given, **component.as_dict())
    if not isinstance(module, nn.Module):
        raise TypeError(f"it must return a torch.nn.Module, got {type(module).__name__}")
    module = _without_compiler(module)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError("it has no parameters to train")
    return module


def weights_on_meta(component: Component, dataset: Dataset | None) -> int:
    """Return the number of weights of a model, without allocating them; 0 if it cannot be built so."""
    with torch.device("meta"), suppress(Exception):  # building it in memory says what is wrong
        return sum(parameter.numel() for parameter in build_model(component, dataset, seed=0).parameters())
    return 0


def tensors_of(arrays: Arrays, dtype: torch.dtype, device: torch.device | str = "cpu") -> Batch:
    """Return inputs and targets as tensors; real numbers in the type of training."""
    x, y = map(torch.as_tensor, arrays)
    x, y = (t.to(device, dtype if t.is_floating_point() else t.dtype) for t in (x, y))
    return x, y


def is_own(component: Component) -> bool:
    """Whether a model is the user's own."""
    return bool(registry.of("model", component).source)


class Network:
    """The forward pass, objective and measures of one model."""

    def __init__(self, module: nn.Module, train: Training, has_data: bool) -> None:
        self.module = module
        self._in_training = False  # whether all its modules are in train mode
        self.has_data = has_data
        self.dtype = DTYPES[train.dtype]
        self.is_half = train.precision == "bf16"
        self.rounding = 2.0**-8 if self.is_half else 0.0  # of products; 0: that of the type of training
        self._l1, self._l2 = train.l1, train.l2
        self.loss_is_output = train.loss.name == "output"
        self._loss = None if self.loss_is_output else Measure("loss", train.loss, "train.loss")
        self._metrics = [Measure("metric", each, f"train.metrics[{n}]") for n, each in enumerate(train.metrics)]
        self.names = train.measures  # of the measures

    def of(self, module: nn.Module) -> Network:
        """Return the same for another module."""
        other = copy.copy(self)
        other.module, other._in_training = module, False
        return other

    @property
    def own_measures(self) -> list[Measure]:
        """The loss and the metrics that are the user's own."""
        return [each for each in (self._loss, *self._metrics) if each and each.is_own]

    # As pure functions of weights, for `vmap`.

    def loss(self, params: Tensors, states: Tensors, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training loss in train mode, with the L1 and L2 penalties, and the states after the call.

        The model may write into the states.
        """
        self.module.train()
        held = {**params, **states}
        with self._cast(x):
            output = self._checked(functional_call(self.module, held, self._inputs(x)))  # new buffers are in `held`
        loss = self._with_penalties(self._objective(output, y, training=True), params.values())
        return loss, {name: held[name] for name in states}

    def predict(self, params: Tensors, states: Tensors, x: Tensor) -> Tensor:
        """Return the output in eval mode."""
        self.module.eval()
        with self._cast(x):
            return self._checked(functional_call(self.module, {**params, **states}, self._inputs(x)))

    def measures(self, output: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Return the loss, then the metrics, of an output in eval mode."""
        return (self._objective(output, y), *(metric(output, y).to(self.dtype) for metric in self._metrics))

    # As a plain loop calls them. What a model changes in itself stays.

    def plain_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the training loss of the module in train mode."""
        if not (self._in_training and self.module.training):  # it takes as long as a small layer
            self.module.train()
            self._in_training = True
        with blamed("model", f"training fails on inputs {tuple(x.shape)}", self._remedy), self._cast(x):
            output = self._checked(self.module(*self._inputs(x)))
        with self._blamed_on_loss(output, y):
            loss = self._objective(output, y, training=True)
        return self._with_penalties(loss, [p for p in self.module.parameters() if p.requires_grad])

    def plain_output(self, x: Tensor) -> Tensor:
        """Return the output of the module in eval mode."""
        self._in_training = False
        self.module.eval()
        with blamed("model", f"evaluation fails on inputs {tuple(x.shape)}"), self._cast(x):
            return self._checked(self.module(*self._inputs(x)))

    def plain_measures(self, output: Tensor, y: Tensor) -> list[Tensor]:
        """Return the loss, then the metrics, of an output in eval mode."""
        remedy = "In evaluation it gets all examples of a part at once."
        with self._blamed_on_loss(output, y, remedy):
            found = [self._objective(output, y)]
        for metric in self._metrics:
            with blamed(metric.key, f"the metric {metric.name} fails on {_shapes(output, y)}", remedy):
                found.append(metric(output, y).to(self.dtype))
        return found

    def _cast(self, x: Tensor) -> AbstractContextManager[object]:
        """Let products be computed in bfloat16, if that is the precision of training."""
        if not self.is_half:
            return nullcontext()
        return torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False)

    def _checked(self, output: Any) -> Tensor:
        tensor = _checked(output)
        return tensor.to(self.dtype) if self.is_half and tensor.is_floating_point() else tensor

    def _inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,) if self.has_data else ()

    def _objective(self, output: Tensor, y: Tensor, training: bool = False) -> Tensor:
        loss = self._loss(output, y, training) if self._loss else output
        if loss.numel() != 1:
            raise ValueError(f"the loss must be a scalar, got the shape {tuple(loss.shape)}")
        return loss.reshape(())

    def _with_penalties(self, loss: Tensor, weights: Iterable[Tensor]) -> Tensor:
        if self._l1:
            loss = loss + self._l1 * torch.stack([tensor.abs().sum() for tensor in weights]).sum()
        if self._l2:
            loss = loss + self._l2 * torch.stack([tensor.square().sum() for tensor in weights]).sum()
        return loss

    def _blamed_on_loss(self, output: Tensor, y: Tensor, remedy: str = "") -> AbstractContextManager[None]:
        name = self._loss.name if self._loss else "of the model"
        return blamed("train.loss", f"the loss {name} fails on {_shapes(output, y)}", remedy)

    @cached_property
    def _remedy(self) -> str:
        takes = inspect.signature(self.module.forward).parameters
        return "" if takes or not self.has_data else "Its forward takes no input; remove the data."


class Measure:
    """A loss or a metric: a function of output and target, which returns a scalar tensor."""

    def __init__(self, kind: str, component: Component, key: str) -> None:
        plugin = registry.of(kind, component)
        self.name, self.key, self.is_own = component.name, key, bool(plugin.source)
        self.function, self._options = plugin.function, component.as_dict()
        self._takes_training = "training" in plugin.given

    def __call__(self, output: Tensor, target: Tensor, training: bool = False) -> Tensor:
        given = {"training": training} if self._takes_training else {}
        value = self.function(output, target, **given, **self._options)
        if not isinstance(value, Tensor):
            name = self.name.rpartition(":")[2]
            raise TypeError(f"{name} must return a scalar tensor, got {type(value).__name__}")
        return value


def _checked(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        parts = {f"output[{key!r}]": value for key, value in output.items()}
    elif isinstance(output, tuple | list):
        parts = {f"output[{number}]": value for number, value in enumerate(output)}
    else:
        parts = {f"output.{name}": value for name, value in getattr(output, "__dict__", {}).items()}
    tensors = [name for name, value in parts.items() if isinstance(value, Tensor)]
    remedy = f"Return one of its tensors in `forward`: {' or '.join(tensors)}." if tensors else ""
    raise Unsupported(f"the model must return a tensor, got {type(output).__name__}.", remedy)


def _shapes(output: Tensor, target: Tensor) -> str:
    kind = "real numbers" if target.is_floating_point() else "classes"
    return f"outputs of shape {tuple(output.shape)} and targets that are {kind} of shape {tuple(target.shape)}"


def _without_compiler(module: nn.Module) -> nn.Module:
    """Return the module without `torch.compile`, which would compile each model for each size of a batch."""
    if "torch._dynamo" not in sys.modules:
        return module
    from torch._dynamo import OptimizedModule

    torch.compiler.set_stance("force_eager")  # for compiled functions
    original: nn.Module = module._orig_mod if isinstance(module, OptimizedModule) else module
    for name, child in original._modules.items():
        if child is not None:
            original._modules[name] = _without_compiler(child)
    return original


def backward(loss: Tensor) -> None:
    try:
        torch.autograd.backward(loss)
    except Exception as error:
        carried = "Detach what is carried from one batch to the next: `self.state = state.detach()`."
        remedy = carried if "second time" in str(error) else ""
        raise Unsupported(f"the backward pass fails: {described(error)}", remedy) from error


def higher_is_better(train: Training, name: str) -> bool:
    """Whether a higher value of a measure is better: never for the loss; a metric declares its direction."""
    named: dict[str, Component] = {metric.name.rpartition(":")[2]: metric for metric in train.metrics}
    return name in named and registry.of("metric", named[name]).higher_is_better
