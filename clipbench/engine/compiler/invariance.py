"""Invariance: whether results are the same bits wherever an element is in a tensor.

Some CPU kernels, such as `sigmoid`, process whole vector registers, then the remaining elements one by one with another
formula, which rounds differently. If the elements of a lane are a multiple of a register, none remain, and each lane is
the same for any number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from clipbench.engine.compiler.memory import contiguous_run
from clipbench.plugins.without_dynamo import call_directly

# Kernels unroll twice over the widest register, 16 numbers of float32.
UNROLLED = 32
SAMPLE, WINDOW = 2048, 23
Call = tuple[Any, ...]

_known: dict[Call, bool] = {}


class InvarianceCheck(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records which of the operators called within it are not invariant, for so many lanes."""

    def __init__(self, lanes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._lanes = lanes
        self.position_dependent: set[str] = set()  # operators whose result for a lane depends on its position
        self.random: set[str] = set()  # operators that draw from the random state that all lanes share

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            if not any(isinstance(value, torch.Generator) for value in tree_iter((args, kwargs))):
                self.random.add(str(func))
        elif torch.Tag.pointwise in func.tags:
            tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor) and value.dim()]
            if not all(map(self._is_whole, tensors)) and depends_on_position(func, args, kwargs or {}):
                self.position_dependent.add(str(func))
        return func(*args, **(kwargs or {}))

    def _is_whole(self, tensor: Tensor) -> bool:
        """Whether each lane fills whole registers."""
        lane, rest = divmod(tensor.numel(), self._lanes)
        run = min(contiguous_run(tensor), lane)
        return not rest and run > 0 and run % UNROLLED == 0


call_directly(InvarianceCheck.__torch_dispatch__)


def depends_on_position(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operator returns other bits for the last elements of a tensor than for the others."""
    key = (func, *map(_kind, tree_iter((args, kwargs))))
    if key not in _known:
        try:
            _known[key] = _differs(func, args, kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError):  # it cannot be tried: assume the worst
            _known[key] = True
    return _known[key]


def _differs(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    draw = torch.Generator().manual_seed(0)
    samples = iter([_sample(value, draw) for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)])
    given = tree_map(lambda value: next(samples) if isinstance(value, Tensor) else value, (tuple(args), dict(kwargs)))

    def on(window: slice) -> list[Tensor]:
        args, kwargs = tree_map(lambda v: v[window].clone() if isinstance(v, Tensor) and v.dim() else v, given)
        return [result for result in tree_iter(func(*args, **kwargs)) if isinstance(result, Tensor)]

    whole = on(slice(None))
    windows = [slice(start, start + WINDOW) for start in range(0, SAMPLE - WINDOW, WINDOW)]
    return not all(
        torch.equal(part.nan_to_num(), result[window].nan_to_num())
        for window in windows
        for part, result in zip(on(window), whole, strict=True)
    )


def _sample(tensor: Tensor, draw: torch.Generator) -> Tensor:
    """Return random numbers of the tensor's type; a scalar for a scalar."""
    shape = (SAMPLE,) if tensor.dim() else ()
    if tensor.is_floating_point():
        return 3 * torch.randn(shape, generator=draw, dtype=tensor.dtype)
    return torch.randint(0, 2, shape, generator=draw).to(tensor.dtype)


def _kind(value: Any) -> Call:
    return (
        ("tensor", value.dtype, value.dim() > 0) if isinstance(value, Tensor) else (type(value).__name__, repr(value))
    )
