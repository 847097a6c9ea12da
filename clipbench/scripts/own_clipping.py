"""Finds a script that also clips by torch's own functions, which would make every arm a clipped one."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from clipbench.scripts.attached_pair import ScriptError

NAMES = ("clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_")
_attached: WeakSet[nn.Module] = WeakSet()


def watch(model: nn.Module) -> None:
    """Raise an error where torch's functions clip the gradients of a model."""
    guard()
    _attached.add(model)


def guard() -> None:
    """Replace torch's functions by those that look: a script that is imported afterwards gets these."""
    for module in (torch.nn.utils, torch.nn.utils.clip_grad):
        for name in NAMES:
            function = getattr(module, name, None)
            if function is not None and not hasattr(function, "__clipbench__"):
                setattr(module, name, _guarded(function))


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    limited_by = list(inspect.signature(function).parameters)[1]

    @functools.wraps(function)
    def clip(parameters: Tensor | Iterable[Tensor], *given: Any, **options: Any) -> Any:
        tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        limit = given[0] if given else options.get(limited_by, math.inf)
        if float(limit) < math.inf:  # an infinite limit only measures
            watched = {id(p) for model in _attached for p in model.parameters()}
            if any(id(p) in watched for p in tensors):
                raise ScriptError(
                    f"torch.nn.utils.{function.__name__} clips the gradient too, in every arm. Remove it: "
                    "clip.step(loss) clips by the rule of the trial."
                )
        return function(tensors, *given, **options)

    clip.__clipbench__ = True  # type: ignore[attr-defined]
    return clip
