"""Products of matrices."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from clipbench.compiler.call_records import Loops
from clipbench.compiler.encode import Encoder, Encoding, Scalar
from clipbench.compiler.trace import CannotCompile, aten


def product(encoder: Encoder, out: Tensor, left: Tensor, right: Tensor, addend: Tensor | None = None) -> None:
    if left.dtype != encoder.dtype:
        raise CannotCompile(f"matrices of {left.dtype} are multiplied")
    operands = [out, left, right, *([] if addend is None else [addend.expand(out.shape)])]
    batches = [each if each.dim() == 3 else each.unsqueeze(0) for each in operands]
    (batch, m, n), k = batches[0].shape, left.shape[-1]
    record = encoder.add("matmul", operands, loops=Loops((), ((),) * len(operands)))
    for position, size in enumerate((batch, m, n, k)):
        record.size[position] = size
    for number, each in enumerate(batches):
        for position, stride in enumerate(each.stride()):
            record.stride[number][position] = stride


def _product_and_sum(
    encoder: Encoder, out: Tensor, addend: Tensor, left: Tensor, right: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1
) -> None:
    if beta != 1 or alpha != 1:
        raise CannotCompile("a product is scaled")
    product(encoder, out, left, right, addend)


def _with_vector(encoder: Encoder, out: Tensor, left: Tensor, right: Tensor) -> None:
    product(encoder, out.unsqueeze(-1), left, right.unsqueeze(-1))


def _dot(encoder: Encoder, out: Tensor, left: Tensor, right: Tensor) -> None:
    product(encoder, out.view(1, 1), left.unsqueeze(0), right.unsqueeze(-1))


ENCODINGS: dict[Any, Encoding] = {
    aten.mm.default: product,
    aten.bmm.default: product,
    aten.addmm.default: _product_and_sum,
    aten.baddbmm.default: _product_and_sum,
    aten.mv.default: _with_vector,
    aten.dot.default: _dot,
}
