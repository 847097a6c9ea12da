"""Gradients and weights as the engine's rules take them: [1, *shape], in one type and on one device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from clipbench.errors import Unsupported

Tensors = Mapping[str, Tensor]


def common_type(tensors: Iterable[Tensor]) -> torch.dtype:
    """Return the type in which a rule is computed: that of the most precise gradient, and at least float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def as_rows(tensors: Tensors, like: Tensor) -> dict[str, Tensor]:
    """Return the tensors as rows, in the type and on the device of `like`; views where they have these already."""
    return {name: t.detach().to(like.device, like.dtype).unsqueeze(0) for name, t in tensors.items()}


def refuse_sparse(gradients: Tensors) -> None:
    """Raise if a gradient is sparse."""
    for name, gradient in gradients.items():
        if gradient.layout != torch.strided:
            text = f"the gradient of {name} is sparse, which cannot be clipped."
            raise Unsupported(text, "Write nn.Embedding(..., sparse=False), or leave this parameter out.")


def refuse_nonfinite(norm: Tensor) -> None:
    """Raise as `torch.nn.utils.clip_grad_norm_` does."""
    if not bool(norm.isfinite()):
        raise RuntimeError(
            "The total norm of the gradients is non-finite, so they cannot be clipped. To disable this error, set "
            "`error_if_nonfinite=False`"
        )
