"""Functions that consist of many operators, and their gradients, beside torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.engine.native_checks import LANES, TOLERANCE, Arguments, check, integers, positive, reals

pytestmark = pytest.mark.native


def gradients(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """Return the function and the gradient of its weighted sum along the arguments that are real numbers."""

    def both(*given: Tensor) -> tuple[Tensor, ...]:
        wanted = tuple(position for position, x in enumerate(given) if x.is_floating_point())

        def total(*given: Tensor) -> tuple[Tensor, Tensor]:
            y = function(*given)
            weights = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view(y.shape)
            return (y * weights).sum(), y

        slopes, y = torch.func.grad(total, wanted, has_aux=True)(*given)
        return y, *slopes

    return both


def norm_of_batch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True)


COMPOSED: dict[str, tuple[Callable[..., Tensor], Callable[[], Arguments]]] = {
    **{
        name: (getattr(F, name), lambda: (reals(7, 33),))
        for name in [
            "elu",
            "celu",
            "selu",
            "softplus",
            "hardtanh",
            "hardswish",
            "mish",
            "logsigmoid",
            "silu",
            "gelu",
            "relu6",
            "leaky_relu",
            "softsign",
            "tanhshrink",
            "softshrink",
            "hardshrink",
        ]
    },
    **{
        name: (getattr(torch, name), lambda: (positive(7, 9),))
        for name in ["square", "frac", "exp2", "erfc", "log2", "asinh", "sinc", "deg2rad", "nan_to_num"]
    },
    "gated": (F.glu, lambda: (reals(7, 32),)),
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), lambda: (reals(7, 33),)),
    "cross entropy": (lambda x, y: F.cross_entropy(x, y), lambda: (reals(9, 5), integers(5, 9))),
    "cross entropy, some ignored": (
        lambda x, y: F.cross_entropy(x, y, ignore_index=2),
        lambda: (reals(9, 5), integers(5, 9)),
    ),
    "cross entropy, smoothed and weighted": (
        lambda x, y: F.cross_entropy(x, y, torch.arange(5, dtype=x.dtype) + 0.5, label_smoothing=0.1, reduction="sum"),
        lambda: (reals(9, 5), integers(5, 9)),
    ),
    "cross entropy of images": (lambda x, y: F.cross_entropy(x, y), lambda: (reals(2, 5, 3, 4), integers(5, 2, 3, 4))),
    "mse": (F.mse_loss, lambda: (reals(9, 5), reals(9, 5))),
    "l1": (F.l1_loss, lambda: (reals(9, 5), reals(9, 5))),
    "smooth l1": (F.smooth_l1_loss, lambda: (reals(9, 5), reals(9, 5))),
    "huber": (F.huber_loss, lambda: (reals(9, 5), reals(9, 5))),
    "binary cross entropy": (F.binary_cross_entropy, lambda: (torch.rand(LANES, 9), torch.rand(LANES, 9))),
    "binary cross entropy of logits": (F.binary_cross_entropy_with_logits, lambda: (reals(9), torch.rand(LANES, 9))),
    "kullback-leibler": (lambda x, y: F.kl_div(x, y, reduction="sum"), lambda: (reals(9), positive(9))),
    "layer norm": (lambda x, w, b: F.layer_norm(x, [8], w, b), lambda: (reals(4, 3, 8), reals(8), reals(8))),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), lambda: (reals(3, 4, 5, 6), reals(4), reals(4))),
    "batch norm": (norm_of_batch, lambda: (reals(6, 4, 5), reals(4), reals(4))),
    "average pooling": (lambda x: F.avg_pool2d(x, 3, 2, 1), lambda: (reals(2, 3, 9, 8),)),
    "average pooling to a size": (lambda x: F.adaptive_avg_pool2d(x, 2), lambda: (reals(2, 3, 8, 6),)),
    "average pooling of rows": (lambda x: F.avg_pool1d(x, 2), lambda: (reals(2, 3, 8),)),
    "max pooling": (lambda x: F.max_pool2d(x, 2), lambda: (reals(2, 3, 8, 6),)),
    "max pooling of rows": (lambda x: F.max_pool1d(x, 2), lambda: (reals(2, 3, 8),)),
    "logsumexp": (lambda x: x.logsumexp(-1), lambda: (reals(4, 9),)),
    "roll": (lambda x: x.roll(2, -1), lambda: (reals(4, 9),)),
    "tril": (torch.tril, lambda: (reals(4, 9),)),
    "triu": (lambda x: x.triu(1), lambda: (reals(4, 9),)),
    "repeat": (lambda x: x.repeat(2, 3), lambda: (reals(4, 9),)),
    "index": (lambda x, i: x[i], lambda: (reals(4, 9), integers(4, 6))),
    "index in two dimensions": (lambda x, i, j: x[i, j], lambda: (reals(4, 9), integers(4, 6), integers(9, 6))),
    "index_select": (lambda x, i: x.index_select(1, i), lambda: (reals(4, 9), integers(9, 6))),
    "index_add": (lambda x, i, y: x.index_add(0, i, y, alpha=2), lambda: (reals(4, 9), integers(4, 6), reals(6, 9))),
    "sort": (lambda x: x.sort(-1).values, lambda: (reals(4, 9),)),
    "quantile by sorting": (lambda x: x.flatten().sort().values[20], lambda: (reals(4, 9),)),
    "largest": (lambda x: x.max(-1).values, lambda: (reals(4, 9),)),
    "norm": (lambda x: x.norm(), lambda: (reals(4, 9),)),
    "norms": (lambda x: torch.linalg.vector_norm(x, 3, -1), lambda: (reals(4, 9),)),
    "deviation": (lambda x: x.std(-1), lambda: (reals(4, 9),)),
    "product": (lambda x: x.prod(-1), lambda: (reals(4, 9),)),
    "running sum": (lambda x: x.cumsum(-1), lambda: (reals(4, 9),)),
    "outer": (torch.outer, lambda: (reals(4), reals(9))),
    "matrix and vector": (torch.mv, lambda: (reals(4, 9), reals(9))),
    "einsum": (lambda a, b: torch.einsum("ijk,lk->ijl", a, b), lambda: (reals(2, 4, 9), reals(5, 9))),
    "embedding with padding": (lambda t, i: F.embedding(i, t, padding_idx=1), lambda: (reals(5, 4), integers(5, 6))),
    "maximum of numbers": (lambda x: x.clamp(-0.5, 0.5).abs().amax(), lambda: (reals(4, 9),)),
    "where": (lambda x: torch.where(x > 0, x, x.exp()), lambda: (reals(4, 9),)),
    "writing": (lambda x: x.clone().mul_(2).add_(x, alpha=3).clamp_(min=0).sub_(1).tanh_(), lambda: (reals(4, 9),)),
    "padding": (lambda x: F.pad(x, (1, -1, 2, 0)), lambda: (reals(3, 4, 9),)),
    "reflection": (lambda x: F.pad(x, (1, 1), mode="reflect"), lambda: (reals(3, 4, 9),)),
    "convolution of rows": (
        lambda x, w, b: F.conv1d(x, w, b, 2, 1),
        lambda: (reals(2, 3, 9), reals(4, 3, 3), reals(4)),
    ),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", COMPOSED)
def test_a_function_and_its_gradient_are_those_of_torch(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    function, arguments = COMPOSED[name]
    check(gradients(function), arguments(), dtype, factor=8)


def test_common_functions_need_no_part_of_torch_that_is_slow_to_import() -> None:
    script = """
import sys, torch, torch.nn.functional as F
from clipbench.compiler.native_program import TensorAxes, NativeProgram
x, out = torch.ones(1, 4, 5), torch.ones(1)
for f in (F.elu, F.softplus, F.mish, F.hardswish, F.logsigmoid, F.hardtanh, torch.tril, lambda x: F.huber_loss(x, x * 2),
          lambda x: F.mse_loss(x, x * 2), lambda x: F.cross_entropy(x, torch.arange(4)), lambda x: x.logsumexp(0)):
    function = lambda x: [torch.func.grad(lambda x: f(x).sum())(x).sum()]
    NativeProgram(function, [(x, TensorAxes())], [(out, TensorAxes())])
assert not {"sympy", "torch._dynamo"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
