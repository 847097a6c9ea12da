"""Operators of a graph as records: by the rule of each, or by the operators that it consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._pytree import tree_flatten, tree_unflatten

from clipbench.compiler.call_records import FURTHEST, Bound, Loops, Record, Span, extent_bytes, fill_in
from clipbench.compiler.composed import COMPOSED
from clipbench.compiler.library import Library
from clipbench.compiler.placement import place
from clipbench.compiler.rewrites import simplify, without_writing
from clipbench.compiler.trace import CannotCompile, trace

Scalar = float | int | bool
Encoding = Callable[..., None]  # called with the encoder, the memory of the result, and the operator's arguments

# What a kernel's name ends with, for the types of its numbers.
SUFFIXES = {"real": "", "integer": "_integer", "flag": "_flag"}

SYMMETRIC = ("add", "multiply")
# How many operands are results, where it is not one; the others are only read.
RESULTS = {"max_pool": 2, "sort": 2}


class Encoder:
    """Writes the records of operators, whose arguments and results are tensors of the first lane."""

    def __init__(
        self, library: Library, dtype: torch.dtype, bound: Sequence[Bound], encodings: Mapping[Any, Encoding]
    ) -> None:
        """`encodings` are the functions that write the records of each operator."""
        self._encodings = encodings
        self._operators, self.dtype, self._bound = library.operators, dtype, bound
        self.kept: list[Tensor] = []  # memory that records point to
        self._records: list[Record] = []
        self._divided: list[Any] = []  # operators whose parts are being encoded

    def __call__(self, target: Any, arguments: Sequence[Any], keywords: dict[str, Any], out: Any) -> list[Record]:
        """Return the records that compute an operator into `out`."""
        target = without_writing(target)
        before, self._records = self._records, []
        try:
            if target not in self._encodings:
                self._records = self._parts(target, arguments, keywords, out)
            else:
                self._by_encoding(target, arguments, keywords, out)
        finally:
            made, self._records = self._records, before
        return made

    def _by_encoding(self, target: Any, arguments: Sequence[Any], keywords: dict[str, Any], out: Any) -> None:
        try:
            self._encodings[target](self, out, *arguments, **keywords)
        except CannotCompile as reason:  # of these arguments only
            try:
                self._records = self._parts(target, arguments, keywords, out)
            except CannotCompile:
                raise reason from None

    def _parts(self, target: Any, arguments: Sequence[Any], keywords: dict[str, Any], out: Any) -> list[Record]:
        """Return the records of the operators that torch says an operator consists of."""
        function = decomposition(target)
        if function is None or target in self._divided:
            raise CannotCompile(f"{target} has no kernel")
        leaves, form = tree_flatten((_lists(arguments), keywords))
        outs = out if isinstance(out, tuple) else (out,)

        def wanted(*tensors: Tensor) -> list[Tensor]:
            given = iter(tensors)
            args, kwargs = tree_unflatten([next(given) if isinstance(x, Tensor) else x for x in leaves], form)
            results = function(*args, **kwargs)
            results = results if isinstance(results, list | tuple) else (results,)
            return [result for result, memory in zip(results, outs, strict=True) if memory is not None]

        tensors = [x for x in leaves if isinstance(x, Tensor)]
        with torch.inference_mode(False):
            traced = trace(wanted, [_zeros(x) for x in tensors])
        simplify(traced.graph)
        self.kept += traced.constants.values()
        self._divided.append(target)
        try:
            return place(traced, tensors, [each for each in outs if each is not None], self)
        finally:
            self._divided.pop()

    def add(
        self,
        name: str,
        operands: Sequence[Tensor],
        loops: Loops | None = None,
        numbers: Sequence[float] = (),
        wholes: Sequence[int] = (),
    ) -> Record:
        """Add a record; without `loops`, over operands of the shape of the first one."""
        if name not in self._operators:
            raise CannotCompile(f"there is no kernel {name}")
        record = Record(operator=self._operators[name], count=len(operands), chain=1)
        fill_in(record, loops or Loops.over(operands))
        for position, tensor in enumerate(operands):
            self._point(record.operand[position], tensor)
        for position, number in enumerate(numbers):
            record.number[position] = number
        if any(abs(whole) > FURTHEST for whole in wholes):
            raise CannotCompile("a tensor is too large")
        for position, whole in enumerate(wholes):
            record.whole[position] = whole
        if operands[0].numel():
            record.spans = tuple(
                Span(
                    each.data_ptr(),
                    each.data_ptr() + extent_bytes(each),
                    each.element_size(),
                    position < RESULTS.get(name, 1),
                )
                for position, each in enumerate(operands)
            )
            self._records.append(record)
        return record

    def compute(self, name: str, out: Tensor, *operands: Tensor | Scalar, numbers: Sequence[float] = ()) -> None:
        """Add an operator that works element by element, on numbers of the type of its result."""
        kind = self.kind(out)
        given = [self.of_kind(kind, operand).expand(out.shape) for operand in operands]
        if name in SYMMETRIC and list(numbers) in ([], [1]) and 0 in given[0].stride():
            given.reverse()  # kernels prefer that the second operand is the one that is repeated
        self.add(name + SUFFIXES[kind], [out, *given], numbers=numbers)

    def mixed(self, name: str, out: Tensor, *operands: Tensor, numbers: Sequence[float] = ()) -> None:
        """Add an operator whose operands have the types that its kernel is for."""
        self.add(name, [out, *(operand.expand(out.shape) for operand in operands)], numbers=numbers)

    def of_kind(self, kind: str, value: Tensor | Scalar) -> Tensor:
        """Return a value as real numbers, integers or flags."""
        dtype = {"real": self.dtype, "integer": torch.int64, "flag": torch.bool}[kind]
        if not isinstance(value, Tensor):
            return self.keep(torch.tensor(value, dtype=dtype))
        if value.dtype == dtype:
            return value
        converted = self.keep(torch.empty(value.shape, dtype=dtype))
        self.copy(converted, value)
        return converted

    def real(self, value: Tensor | Scalar) -> Tensor:
        return self.of_kind("real", value)

    def flag(self, value: Tensor | Scalar) -> Tensor:
        return self.of_kind("flag", value)

    def copy(self, out: Tensor, source: Tensor) -> None:
        to, of = self.kind(out), self.kind(source)
        self.mixed(f"copy_{to}" if to == of else f"{to}_of_{of}", out, source)

    def fill(self, out: Tensor, number: Scalar) -> None:
        whole = out.numel() * out.element_size() if number == 0 and out.is_contiguous() else 0
        self.add("fill" + SUFFIXES["real" if whole else self.kind(out)], [out], numbers=[number], wholes=[whole])

    def keep(self, tensor: Tensor) -> Tensor:
        self.kept.append(tensor)
        return tensor

    def scratch(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Return memory for numbers that only this operator needs."""
        return self.keep(torch.empty(tuple(shape), dtype=dtype or self.dtype))

    def kind(self, tensor: Tensor) -> str:
        kinds = {self.dtype: "real", torch.int64: "integer", torch.bool: "flag"}
        if tensor.dtype not in kinds:
            raise CannotCompile(f"there are no kernels for {tensor.dtype} beside {self.dtype}")
        return kinds[tensor.dtype]

    def _point(self, operand: Any, tensor: Tensor) -> None:
        self.kept.append(tensor)
        operand.at = address = tensor.data_ptr()
        for bound in self._bound:
            if address in bound.span:
                operand.lane, operand.seed, operand.part, operand.step = bound.lane, bound.seed, bound.part, bound.step
                return


def decomposition(target: Any) -> Any:
    """Return the function of other operators that computes an operator, or None."""
    return COMPOSED.get(target) or decomposition_table.get(target) or getattr(target, "impl_aten", None)


def _lists(arguments: Any) -> Any:
    """Return arguments whose lists may be changed, as some functions do; those of a graph may not."""
    if isinstance(arguments, tuple | list):
        return (tuple if isinstance(arguments, tuple) else list)(map(_lists, arguments))
    return arguments


def _zeros(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).zero_()
