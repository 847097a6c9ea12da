"""Keep torch from importing torch._dynamo, which it does not need here and which takes as long as torch itself.

Optimizers, dispatch modes and `torch.func.grad` import it only to say that a compiler must leave some parts alone.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.optim import Optimizer

GRADIENTS_OFF = "_use_grad"  # the function around `step` of torch's optimizers


def call_directly(function: Callable[..., Any]) -> None:
    """Let a function that torch hides from a compiler run as it is: nothing compiles what calls it here."""
    if hidden := getattr(function, "__wrapped__", None):
        hidden.__dict__.setdefault("__dynamo_disable", hidden)


def avoid_dynamo() -> None:
    """Change those parts of torch that import it; where torch is other than expected, change nothing."""
    for part in (Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict):
        call_directly(part)
    for kind in vars(torch.optim).values():
        step = vars(kind).get("step") if inspect.isclass(kind) else None
        if inspect.isfunction(step) and step.__code__.co_name == GRADIENTS_OFF:
            kind.step = _with_gradients_off(step)
    if list(inspect.signature(_torch_grad).parameters) == list(inspect.signature(_grad).parameters):
        eager_transforms._autograd_grad = _grad


def _with_gradients_off(torch_step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the step of an optimizer, within what torch puts around it and without its import."""
    own_step = inspect.unwrap(torch_step)

    @functools.wraps(torch_step)
    def step(self: Optimizer, *arguments: Any, **options: Any) -> Any:
        if "torch._dynamo" in sys.modules:  # something may be compiled
            return torch_step(self, *arguments, **options)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return own_step(self, *arguments, **options)

    return step


_torch_grad = eager_transforms._autograd_grad


def _grad(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grad_outputs: Sequence[Tensor] | None = None,
    retain_graph: bool = False,
    create_graph: bool = True,
) -> tuple[Tensor, ...]:
    """The gradient of one output that depends on the inputs, as `torch.func.grad` asks for it; torch does the rest."""
    asked: dict[str, Any] = {"retain_graph": retain_graph, "create_graph": create_graph}
    if "torch._dynamo" in sys.modules or grad_outputs is not None or not all(out.requires_grad for out in outputs):
        return _torch_grad(outputs, inputs, grad_outputs, **asked)
    return torch.autograd.grad(outputs, inputs, allow_unused=True, materialize_grads=True, **asked)
