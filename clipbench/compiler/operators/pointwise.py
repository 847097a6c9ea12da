"""Operators that work element by element."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clipbench.compiler.encode import Encoder, Encoding, Scalar
from clipbench.compiler.operators.encoding import plain, with_number
from clipbench.compiler.trace import CannotCompile, aten


def _swapped(kernel: str) -> Encoding:
    return lambda encoder, out, a, b, alpha=1: encoder.compute(kernel, out, b, a, numbers=[alpha])


def _divide(encoder: Encoder, out: Tensor, a: Any, b: Any, rounding_mode: str | None = None) -> None:
    if rounding_mode == "trunc":
        encoder.compute("divide", out, a, b)
        encoder.compute("round_to_zero", out, out)
    else:
        encoder.compute("quotient" if rounding_mode else "divide", out, a, b)


def _power(encoder: Encoder, out: Tensor, a: Any, b: Any) -> None:
    simple = {3.0: "cube", 2.0: "square", 0.5: "square_root", -1.0: "inverse"}
    if not isinstance(b, Tensor) and float(b) in simple:
        encoder.compute(simple[float(b)], out, a)
    elif not isinstance(b, Tensor) and b == 1:
        encoder.copy(out, a)
    else:
        encoder.compute("power", out, a, b)


def _clamp(encoder: Encoder, out: Tensor, x: Any, min: Any = None, max: Any = None) -> None:
    both = min is not None and max is not None
    between = encoder.scratch(out.shape, out.dtype) if both and isinstance(max, Tensor) else out
    if min is not None:
        encoder.compute("maximum", between, x, min)
    if max is not None:
        encoder.compute("minimum", out, between if both else x, max)


def _comparison(kernel: str, swapped: bool = False) -> Encoding:
    def encode(encoder: Encoder, out: Tensor, *given: Any) -> None:
        real = any(x.is_floating_point() if isinstance(x, Tensor) else isinstance(x, float) for x in given)
        kind, suffix = ("real", "") if real else ("integer", "_integer")
        a, b = (encoder.of_kind(kind, x) for x in given)
        encoder.mixed(kernel + suffix, out, *((b, a) if swapped else (a, b)))

    return encode


def _flags(kernel: str) -> Encoding:
    def encode(encoder: Encoder, out: Tensor, *given: Any) -> None:
        if out.dtype != torch.bool:
            raise CannotCompile("an operator on bits of integers")
        encoder.mixed(kernel, out, *map(encoder.flag, given))

    return encode


def _where(encoder: Encoder, out: Tensor, condition: Tensor, a: Any, b: Any) -> None:
    kind = encoder.kind(out)
    suffix = "" if kind == "real" else f"_{kind}"
    encoder.mixed("choose" + suffix, out, encoder.flag(condition), encoder.of_kind(kind, a), encoder.of_kind(kind, b))


def _masked_fill(encoder: Encoder, out: Tensor, x: Tensor, mask: Tensor, value: Any) -> None:
    _where(encoder, out, mask, value, x)


def _gelu(encoder: Encoder, out: Tensor, *given: Any, approximate: str = "none") -> None:
    if approximate != "none":
        raise CannotCompile("gelu is approximated by tanh")
    encoder.compute("gelu" if len(given) == 1 else "gelu_backward", out, *given)


def _last_number(kernel: str, operands: int, default: float = 0) -> Encoding:
    """Return the encoding of an operator that takes a number after its operands."""
    return lambda encoder, out, *given: encoder.compute(
        kernel, out, *given[:operands], numbers=[float((*given, default)[operands])]
    )


def _overloads(kernels: dict[str, str], *overloads: str) -> dict[Any, Encoding]:
    return {getattr(getattr(aten, name), each): plain(kernel) for name, kernel in kernels.items() for each in overloads}


def _add(encoder: Encoder, out: Tensor, a: Any, b: Any, alpha: Scalar = 1) -> None:
    encoder.compute("add", out, a, b, numbers=[alpha])


def _multiply(encoder: Encoder, out: Tensor, a: Any, b: Any) -> None:
    encoder.compute("multiply", out, a, b) if out.dtype != torch.bool else _flags("both")(encoder, out, a, b)


def _subtract(encoder: Encoder, out: Tensor, a: Any, b: Any, alpha: Scalar = 1) -> None:
    encoder.compute("subtract", out, a, b, numbers=[alpha])


UNARY = {
    "neg": "negate",
    "abs": "magnitude",
    "sgn": "sign",
    "sign": "sign",
    "sqrt": "square_root",
    "rsqrt": "inverse_root",
    "reciprocal": "inverse",
    "exp": "exponential",
    "exp2": "exponential_2",
    "expm1": "exponential_m1",
    "log": "logarithm",
    "log1p": "logarithm_1p",
    "log2": "logarithm_2",
    "log10": "logarithm_10",
    "tanh": "tanh_of",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "silu": "silu",
    "sin": "sine",
    "cos": "cosine",
    "tan": "tangent",
    "asin": "arc_sine",
    "acos": "arc_cosine",
    "atan": "arc_tangent",
    "sinh": "hyperbolic_sine",
    "cosh": "hyperbolic_cosine",
    "asinh": "inverse_hyperbolic_sine",
    "acosh": "inverse_hyperbolic_cosine",
    "atanh": "inverse_hyperbolic_tangent",
    "erf": "error_function",
    "erfc": "error_function_complement",
    "floor": "round_down",
    "ceil": "round_up",
    "trunc": "round_to_zero",
    "round": "round_to_even",
}
BINARY = {
    "maximum": "maximum",
    "minimum": "minimum",
    "atan2": "arc_tangent_2",
    "tanh_backward": "tanh_backward",
    "sigmoid_backward": "sigmoid_backward",
    "silu_backward": "silu_backward",
    "floor_divide": "quotient",
}
WITH_NUMBERS = {"remainder": "modulo", "fmod": "signed_modulo"}
COMPARISONS = {"lt": "less", "le": "less_equal", "eq": "equal", "ne": "not_equal"}
SWAPPED = {"gt": "less", "ge": "less_equal"}

ENCODINGS: dict[Any, Encoding] = {
    **_overloads(UNARY, "default"),
    **_overloads(BINARY, "default"),
    **_overloads(WITH_NUMBERS, "Tensor", "Scalar"),
    **_overloads({"clamp_min": "maximum", "clamp_max": "minimum"}, "default", "Tensor"),
    **{getattr(getattr(aten, n), o): _comparison(k) for n, k in COMPARISONS.items() for o in ("Tensor", "Scalar")},
    **{getattr(getattr(aten, n), o): _comparison(k, True) for n, k in SWAPPED.items() for o in ("Tensor", "Scalar")},
    **dict.fromkeys((aten.add.Tensor, aten.add.Scalar), _add),
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), _multiply),
    **dict.fromkeys((aten.sub.Tensor, aten.sub.Scalar), _subtract),
    **dict.fromkeys((aten.rsub.Tensor, aten.rsub.Scalar), _swapped("subtract")),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar, aten.div.Tensor_mode, aten.div.Scalar_mode), _divide),
    **dict.fromkeys((aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar), _power),
    **dict.fromkeys((aten.clamp.default, aten.clamp.Tensor), _clamp),
    aten.hardtanh.default: lambda encoder, out, x, low=-1, high=1: _clamp(encoder, out, x, low, high),
    aten.where.self: _where,
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), _masked_fill),
    aten.addcmul.default: with_number("add_product"),
    aten.addcdiv.default: with_number("add_quotient"),
    **dict.fromkeys((aten.lerp.Scalar, aten.lerp.Tensor), plain("interpolate")),
    **dict.fromkeys((aten.gelu.default, aten.gelu_backward.default), _gelu),
    aten.threshold_backward.default: _last_number("threshold_backward", 2),
    **dict.fromkeys(
        (aten.softshrink_backward.default, aten.hardshrink_backward.default), _last_number("shrink_backward", 2)
    ),
    aten.leaky_relu.default: _last_number("leaky_relu", 1, 0.01),
    aten.leaky_relu_backward.default: _last_number("leaky_relu_backward", 2),
    **dict.fromkeys((aten.logical_not.default, aten.bitwise_not.default), _flags("not_flag")),
    **dict.fromkeys((aten.logical_and.default, aten.bitwise_and.Tensor), _flags("both")),
    **dict.fromkeys((aten.logical_or.default, aten.bitwise_or.Tensor), _flags("either")),
    **dict.fromkeys((aten.logical_xor.default, aten.bitwise_xor.Tensor), _flags("one_of")),
    aten.isnan.default: lambda encoder, out, x: encoder.mixed("not_equal", out, *[encoder.real(x)] * 2),
}
