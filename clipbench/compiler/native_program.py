"""A native program: a function of one lane, traced once and run for many lanes by kernels that are compiled C."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipbench.compiler.call_records import Bound, Piece, Record
from clipbench.compiler.chains import Chains
from clipbench.compiler.encode import Encoder
from clipbench.compiler.half_precision import widen
from clipbench.compiler.library import Library, library
from clipbench.compiler.operators import ENCODINGS
from clipbench.compiler.placement import place
from clipbench.compiler.rewrites import simplify
from clipbench.compiler.trace import trace

Function = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class TensorAxes:
    """Which dimension of a tensor is over lanes, or over the seeds of lanes, over parts of a lane, over steps.

    It is None where all share what the tensor holds.
    """

    lane: int | None = 0
    seed: int | None = None
    part: int | None = None
    step: int | None = None

    @property
    def of_lanes(self) -> bool:
        """Whether lanes may have different ones."""
        return self.lane is not None or self.seed is not None

    def bound(self, tensor: Tensor) -> Bound:
        """Return what a tensor holds for the first lane, seed, part and step, and the bytes to the next of each."""
        axes = {name: axis for name, axis in vars(self).items() if axis is not None}
        first = tensor
        for axis in sorted(axes.values(), reverse=True):
            first = first.select(axis, 0)
        bytes_each = {
            name: tensor.stride(axis) * tensor.element_size() * (tensor.shape[axis] > 1) for name, axis in axes.items()
        }
        return Bound(first, **{"lane": 0, **bytes_each})

    def steps_first(self, tensor: Tensor) -> Tensor:
        """Return a view [steps, lanes or seeds, parts, ...], without dimensions that it does not have."""
        front = [axis for axis in (self.step, self.lane, self.seed, self.part) if axis is not None]
        return tensor.movedim(front, list(range(len(front))))

    def of_step(self, tensor: Tensor, step: int | Tensor) -> Tensor:
        """Return what all have at a step, whose number may be a tensor [1] on the device."""
        tensor = self.steps_first(tensor)
        if self.step is None:
            return tensor
        if isinstance(step, int) or tensor.shape[0] == 1:
            return tensor[step if tensor.shape[0] > 1 else 0]
        return tensor.index_select(0, step).squeeze(0)

    def one(self, tensor: Tensor, lane: int, seed: int = 0, part: int = 0, step: int = 0) -> Tensor:
        """Return what a part of a lane has at a step; `seed` is the number of its seed."""
        places = {self.lane: lane, self.seed: seed, self.part: part, self.step: step}
        for axis in sorted((axis for axis in places if axis is not None), reverse=True):
            tensor = tensor.select(axis, places[axis] if tensor.shape[axis] > 1 else 0)
        return tensor


class NativeProgram:
    """Records that compute a function of one lane, for each lane, part and step of its tensors."""

    def __init__(
        self,
        function: Function,
        inputs: Sequence[tuple[Tensor, TensorAxes]],
        outputs: Sequence[tuple[Tensor, TensorAxes]],
        parts: int = 1,
        first_lane: int = 0,
    ) -> None:
        """The tensors hold `first_lane` and those after it."""
        bound = [axes.bound(tensor) for tensor, axes in (*inputs, *outputs)]
        given, results = ([each.first for each in some] for some in (bound[: len(inputs)], bound[len(inputs) :]))
        dtype = next(tensor.dtype for tensor, _ in outputs if tensor.is_floating_point())
        self.library = library(dtype)
        traced = trace(function, given)
        widen(traced, dtype)
        simplify(traced.graph)
        encoder = Encoder(self.library, dtype, bound, ENCODINGS)
        with torch.inference_mode():
            records: list[Record] = place(traced, given, results, encoder)
        records = Chains(records, self.library).ordered()
        self._kept = (encoder.kept, traced.constants)  # the memory that records point to
        self._records = (Record * len(records))(*records)
        for record in self._records if first_lane else ():
            for operand in record.operand[: record.count]:
                operand.at -= first_lane * operand.lane
        self.piece = Piece(self._records, len(records), parts)


class Run:
    """Programs that are run one after another, for some steps of one lane, then of the next."""

    def __init__(self, programs: Sequence[NativeProgram], seeds: Sequence[int] = ()) -> None:
        """`seeds` are the numbers of the seeds of all lanes, which may change; without them it is 0 for all."""
        self._programs, self._seeds = programs, seeds
        self._pieces = (Piece * len(programs))(*(program.piece for program in programs))
        self._library: Library = programs[0].library

    def __call__(self, lanes: Sequence[int], first: int = 0, steps: int = 1) -> None:
        """Run for some lanes, from a step on."""
        numbers = (ctypes.c_int32 * len(lanes))(*lanes)
        seeds = (ctypes.c_int32 * len(lanes))(*(self._seeds[lane] for lane in lanes) if self._seeds else ())
        if self._library.run(self._pieces, len(self._pieces), numbers, seeds, len(lanes), first, steps):
            raise IndexError("an index is out of range")
