"""How operators are encoded that are one kernel of the same operands."""

from __future__ import annotations

from typing import Any

from clipbench.compiler.encode import Encoder, Encoding, Scalar


def plain(kernel: str) -> Encoding:
    """Return the encoding of an operator that a kernel of the same operands computes."""
    return lambda encoder, out, *operands: encoder.compute(kernel, out, *operands)


def with_number(kernel: str, default: float = 1) -> Encoding:
    """Return the encoding of an operator whose last argument is a number that the kernel reads."""

    def encode(
        encoder: Encoder, out: Any, *given: Any, alpha: Scalar | None = None, value: Scalar | None = None
    ) -> None:
        named = alpha if alpha is not None else value
        encoder.compute(kernel, out, *given, numbers=[default if named is None else named])

    return encode
