"""Owns which of PyTorch's layers are computed in another way when many models are trained at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from clipbench.engine.layers import attention, convolution, normalization, recurrence

REPLACEMENTS: Mapping[Any, Callable[..., Any]] = {
    **attention.REPLACEMENTS,
    **convolution.REPLACEMENTS,
    **normalization.REPLACEMENTS,
    **recurrence.REPLACEMENTS,
}


@contextmanager
def layers_for_many() -> Iterator[None]:
    """Within this context the layers of a model are those that `vmap` keeps fast."""
    # Attention by PyTorch's own products and softmax: its fused kernel would be called for one model at a time.
    with sdpa_kernel(SDPBackend.MATH), _Replaced():
        yield


class _Replaced(TorchFunctionMode):
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        replacement = REPLACEMENTS.get(function)
        if replacement is not None:
            result = replacement(*args, **dict(kwargs or {}))
            if result is not None:  # None: it is not for these arguments
                return result
        return function(*args, **(kwargs or {}))
