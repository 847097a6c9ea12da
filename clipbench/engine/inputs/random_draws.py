"""The random numbers that models and losses draw, by dropout or `torch.randn_like`: found, drawn ahead, and given.

A plain call of a model shows what it draws and in which order. These numbers are drawn for each seed and step from the
generator that a plain loop would draw them from, and a program gets them as inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from clipbench.compiler.trace import CannotCompile, aten
from clipbench.engine.inputs.upload import upload
from clipbench.plugins.without_dynamo import call_directly

# Operators whose numbers depend on no values, only on shapes and on numbers of Python.
DRAWING = frozenset(
    {
        *("bernoulli_.float", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "uniform_"),
        *("random_", "random_.from", "random_.to", "bernoulli.p", "normal.float_float"),
        *("rand", "rand_like", "randint", "randint.low", "randint_like", "randint_like.low_dtype"),
        *("randn", "randn_like", "randperm"),
    }
)
# They depend on values, and have no form as a function of such numbers here.
REFUSED = frozenset({"binomial", "_sample_dirichlet"})
# Arguments of these operators that decide how numbers are stored.
UNIMPORTANT = frozenset({"generator", "dtype", "layout", "device", "pin_memory", "memory_format"})

Distribution = tuple[str, Mapping[str, Any]]


class Layout(NamedTuple):
    """A tensor of which only the place in memory matters: the order of its elements there is that of the numbers."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> Layout:
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def empty(self) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype)


class Draw(NamedTuple):
    """One call of an operator that draws random numbers."""

    operator: Any
    args: tuple[Any, ...]  # with layouts for tensors
    kwargs: dict[str, Any]
    result: Layout

    @property
    def kept(self) -> torch.dtype:
        """The type in which its numbers are kept."""
        return torch.float32 if self.result.dtype == torch.bfloat16 else self.result.dtype

    @property
    def bytes(self) -> int:
        return self.result.empty().nbytes

    @property
    def distribution(self) -> Distribution:
        return distribution(self.operator, self.args, self.kwargs)

    def into(self, out: Tensor) -> None:
        """Draw from the global generator of torch on the CPU."""
        if self.operator._schema.is_mutable and self.result == Layout.of(out):
            self.operator(out, *self.args[1:], **self.kwargs)
            return
        args = (each.empty() if isinstance(each, Layout) else each for each in self.args)
        out.copy_(self.operator(*args, **self.kwargs))


def distribution(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Distribution:
    """Return what an operator draws: its name, in place or not, its parameters, and the shape."""
    given = {
        name: tuple(value.shape) if isinstance(value, Layout | Tensor) else value
        for name, value in _arguments(operator, args, kwargs).items()
        if name not in UNIMPORTANT
    }
    return _name(operator).partition(".")[0].rstrip("_"), given


class DrawnNumbers:
    """What is drawn for a block of steps: [slots, seeds, parts, ...] for each draw."""

    def __init__(self, draws: Sequence[Draw], slots: int, seeds: int, parts: int, device: torch.device) -> None:
        self.draws, shape = draws, (slots, seeds, parts)
        self._drawn = [torch.zeros(*shape, *draw.result.shape, dtype=draw.kept) for draw in draws]  # on the CPU
        for draw, drawn in zip(draws, self._drawn, strict=True):  # programs are tried on what stands there
            draw.into(drawn[0, 0, 0])
            drawn.copy_(drawn[0, 0, 0].clone())
        self.numbers = [drawn.to(device) for drawn in self._drawn]

    def draw(self, slot: int, seed: int) -> None:
        """Draw the numbers of all parts at a step."""
        for part in range(self._drawn[0].shape[2] if self._drawn else 0):
            for draw, drawn in zip(self.draws, self._drawn, strict=True):
                draw.into(drawn[slot, seed, part])

    def send(self) -> None:
        """Send what was drawn to the device, if that is another one."""
        for drawn, numbers in zip(self._drawn, self.numbers, strict=True):
            if drawn is not numbers:
                upload(numbers, drawn.clone())


class _DrawMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets a subclass answer each call of an operator that draws random numbers."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = _name(function)
        if name in DRAWING and kwargs.get("generator") is None:
            return self.drawn(function, args, kwargs)
        if not (name in REFUSED or torch.Tag.nondeterministic_seeded in function.tags):
            return function(*args, **kwargs)
        if _arguments(function, args, kwargs).get("dropout_p") == 0:  # attention, which draws nothing then
            return function(*args, **kwargs)
        with self:
            if function in COMPOSED:
                return COMPOSED[function](*args, **kwargs)
            result = function.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        self.refuse(f"it draws random numbers by {name}")
        return function(*args, **kwargs)

    def drawn(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        raise NotImplementedError

    def refuse(self, reason: str) -> None:
        raise CannotCompile(reason)


class Found(_DrawMode):  # type: ignore[no-untyped-call]
    """In its context, the draws of a plain call are noted in `draws`, and in `refusal` if one cannot be given."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws: list[Draw] = []
        self.refusal = ""

    def refuse(self, reason: str) -> None:
        self.refusal = reason

    def drawn(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        result: Tensor = function(*args, **kwargs)
        layouts, keywords = tree_map_only(Tensor, Layout.of, (tuple(args), kwargs))
        self.draws.append(Draw(function, layouts, keywords, Layout.of(result)))
        return result


class Given(_DrawMode):  # type: ignore[no-untyped-call]
    """In its context, what would be drawn is taken from tensors, in order."""

    def __init__(self, draws: Sequence[Draw], numbers: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left: Iterator[tuple[Draw, Tensor]] = iter(zip(draws, numbers, strict=True))

    def drawn(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        draw, numbers = next(self._left, (None, None))
        if draw is None or numbers is None or draw.distribution != distribution(function, args, kwargs):
            raise CannotCompile(f"it draws other random numbers than when it was called first: {_name(function)}")
        if not function._schema.is_mutable:
            return numbers.to(draw.result.dtype, copy=True)
        into: Tensor = args[0]
        return into.copy_(numbers)


call_directly(_DrawMode.__torch_dispatch__)


def _arguments(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, with defaults."""
    parameters = function._schema.arguments
    rest = {p.name: kwargs.get(p.name, p.default_value) for p in parameters[len(args) :]}
    return {p.name: value for p, value in zip(parameters, args, strict=False)} | rest


def _name(function: Any) -> str:
    name: str = function._schema.name.partition("::")[2]
    return name if function._overloadname == "default" else f"{name}.{function._overloadname}"


# Operators whose numbers depend on values, as functions of numbers that do not; the same numbers as on the CPU.


def _with_probability(p: Tensor) -> Tensor:
    return (torch.rand_like(p, memory_format=torch.contiguous_format) < p).to(p.dtype)


def _set_with_probability(x: Tensor, p: Tensor, generator: None = None) -> Tensor:
    return x.copy_(torch.rand(x.shape, dtype=p.dtype, device=p.device) < p)


def _normal(mean: Tensor | float, std: Tensor | float = 1.0, generator: None = None) -> Tensor:
    like = mean if isinstance(mean, Tensor) else std
    assert isinstance(like, Tensor)
    shape = (torch.as_tensor(mean, device=like.device) + std).shape
    return torch.randn(shape, dtype=like.dtype, device=like.device) * std + mean


def _multinomial(weights: Tensor, count: int, replacement: bool = False, generator: None = None) -> Tensor:
    if replacement and count > 1:
        raise CannotCompile("it draws more than one number by multinomial with replacement")
    scores = weights / torch.empty_like(weights).exponential_()
    return scores.argmax(-1, keepdim=True) if count == 1 else scores.topk(count).indices


def _dropout(x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    mask = torch.empty_like(x).bernoulli_(1 - p)
    return x * mask * (0.0 if p == 1 else 1 / (1 - p)), mask.bool()


COMPOSED: dict[Any, Callable[..., Any]] = {
    aten.bernoulli.default: lambda p, generator=None: _with_probability(p),
    aten.bernoulli_.Tensor: _set_with_probability,
    aten.normal.Tensor_float: _normal,
    aten.normal.float_Tensor: _normal,
    aten.normal.Tensor_Tensor: _normal,
    aten.multinomial.default: _multinomial,
    aten.native_dropout.default: _dropout,
}
