"""The replacement of PyTorch's layers by forms that are fast when many models are trained at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from clipbench.engine.layers import attention, convolution, normalization, one_hot, recurrence

REPLACEMENTS: Mapping[Any, Callable[..., Any]] = {
    **attention.REPLACEMENTS,
    **convolution.REPLACEMENTS,
    **normalization.REPLACEMENTS,
    **one_hot.REPLACEMENTS,
    **recurrence.REPLACEMENTS,
}


@contextmanager
def layers_for_many() -> Iterator[None]:
    """Replace the layers of models that are called in this context by forms that are fast under `vmap`."""
    # Attention by PyTorch's own products and softmax: its fused kernel would be called for each model.
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
            if result is not None:  # None: these arguments are not supported
                return result
        return function(*args, **(kwargs or {}))
