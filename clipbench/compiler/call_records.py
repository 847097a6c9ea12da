"""Records of a native program: an operator, its operands in memory, and the loops over them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from clipbench.compiler.trace import CannotCompile

RANK, OPERANDS, WHOLES = 5, 5, 10  # as in records.h
FURTHEST = 2**31 - 1  # bytes, for a stride


class _Operand(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("lane", "seed", "part", "step"))]


class Record(ctypes.Structure):
    """One call of a kernel; the same as `Record` in records.h."""

    spans: tuple[Span, ...]  # the memory of its operands
    _fields_ = [
        ("operator", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("chain", ctypes.c_int32),
        ("size", ctypes.c_int32 * RANK),
        ("stride", ctypes.c_int32 * RANK * OPERANDS),
        ("whole", ctypes.c_int32 * WHOLES),
        ("number", ctypes.c_double * 2),
        ("operand", _Operand * OPERANDS),
    ]


@dataclass(frozen=True)
class Span:
    """The memory of an operand, in bytes."""

    start: int
    end: int
    item: int  # of a number
    is_written: bool

    @property
    def is_long(self) -> bool:
        """Whether it holds more than one number."""
        return self.end - self.start > self.item

    def overlaps(self, other: Span) -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Loops:
    """Loops over operands: sizes, and for each operand the bytes to its next element, the outermost first."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @classmethod
    def over(cls, operands: Sequence[Tensor]) -> Loops:
        """Return loops over operands of one shape, as few as possible, in the order of the first one's memory."""
        return cls.of(operands[0].shape, [bytes_apart(tensor) for tensor in operands])

    @classmethod
    def of(cls, sizes: Sequence[int], strides: Sequence[Sequence[int]]) -> Loops:
        """Return loops of these sizes, in the order of the first operand's strides; those that can be one are one."""
        axes = [axis for axis, size in enumerate(sizes) if size != 1]
        axes.sort(key=lambda axis: [abs(each[axis]) for each in strides], reverse=True)
        merged: list[tuple[int, list[int]]] = []
        for axis in axes:
            size, steps = sizes[axis], [each[axis] for each in strides]
            if merged and all(outer == step * size for outer, step in zip(merged[-1][1], steps, strict=True)):
                size *= merged.pop()[0]
            merged.append((size, steps))
        return cls(tuple(size for size, _ in merged), tuple(zip(*(steps for _, steps in merged), strict=True)))

    @property
    def rank(self) -> int:
        return len(self.sizes)

    def inside(self, outer: Loops) -> Loops:
        """Return these loops inside of others."""
        theirs = outer.strides or ((),) * len(self.strides)
        mine = self.strides or ((),) * len(theirs)
        return Loops(outer.sizes + self.sizes, tuple(a + b for a, b in zip(theirs, mine, strict=True)))


def fill_in(record: Record, loops: Loops) -> None:
    """Write loops into a record, after loops of size 1."""
    if loops.rank > RANK:
        raise CannotCompile(f"an operator needs {loops.rank} loops")
    first = RANK - loops.rank
    for axis in range(RANK):
        record.size[axis] = 1 if axis < first else loops.sizes[axis - first]
    for number, steps in enumerate(loops.strides):
        for axis, step in enumerate(steps):
            if abs(step) > FURTHEST:
                raise CannotCompile("a tensor is too large")
            record.stride[number][first + axis] = step


def bytes_apart(tensor: Tensor) -> tuple[int, ...]:
    """Return the bytes to the next element along each dimension."""
    return tuple(stride * tensor.element_size() for stride in tensor.stride())


class Piece(ctypes.Structure):
    """The records of a program, and for how many parts of a lane they are run; the same as `Program` in kernels.c."""

    _fields_ = [("records", ctypes.POINTER(Record)), ("count", ctypes.c_int32), ("parts", ctypes.c_int32)]


@dataclass(frozen=True)
class Bound:
    """A tensor of which each lane, seed, part or step has its own; programs are made with those of the first."""

    first: Tensor
    lane: int  # bytes to the next lane
    seed: int = 0
    part: int = 0
    step: int = 0

    @cached_property
    def span(self) -> range:
        """The addresses of the first one."""
        start = self.first.data_ptr()
        return range(start, start + extent_bytes(self.first))


def extent_bytes(tensor: Tensor) -> int:
    if tensor.numel() == 0:
        return 0
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (reach + 1) * tensor.element_size()
