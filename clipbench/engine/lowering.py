"""Functions of one lane, run for many lanes by the fastest method that supports them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from clipbench.compiler.native_program import NativeProgram, Run, TensorAxes
from clipbench.compiler.trace import CannotCompile, trace
from clipbench.engine.lane_seeds import LaneSeeds

# Compiled kernels for one lane after another; the operators of the function mapped over lanes, or its Python code
# mapped over lanes; its Python code for one lane after another. The fastest first.
PATHS = ("native", "replay", "eager", "looped")

Function = Callable[..., Sequence[Tensor]]
Bound = tuple[Tensor, TensorAxes]

# What tracing and `vmap` raise for functions that they do not support.
REFUSALS = (CannotCompile, NotImplementedError, RuntimeError, TypeError, ValueError)
# What only a fault of ours raises: a user's function has run before.
FAULTS: tuple[type[Exception], ...] = (AssertionError, AttributeError, IndexError, KeyError)
REPORT = "This is a fault of clipbench: please report it, with your experiment and what `clipbench doctor` prints"


def slowest(paths: Iterable[str]) -> str:
    """Return the path of what consists of these; empty if there are none."""
    return max(paths, key=PATHS.index, default="")


class Lowered:
    """A function of a part of one lane, for all lanes and parts; call it to take one step."""

    def __init__(
        self,
        function: Function,
        inputs: Sequence[Bound],
        outputs: Sequence[Bound],
        lanes: range,
        parts: int = 1,
        exact: Function | None = None,
        seeds: LaneSeeds | None = None,
        rounding: float = 0.0,
    ) -> None:
        """The tensors hold the lanes and the parts. `exact` is the function for compiled kernels, if that is another.

        `seeds` are those of all lanes. With a `rounding`, results may differ by some of it. What the inputs hold now is
        what the function is tried on, and stays as it is; outputs do not.
        """
        self._close = partial(all_close, rounding=rounding)
        self._function, self._inputs, self._outputs = function, inputs, outputs
        self._lanes, self._parts, self._seeds = lanes, parts, seeds
        # Parts that write into one memory, such as the buffers of a model, read what the part before has written.
        self._in_turn = parts > 1 and any(axes.part is None for _, axes in outputs)
        self.native: NativeProgram | None = None
        self.refusals: list[str] = []
        self._step, self.path = self._plain, "looped"
        on_cpu = outputs[0][0].device.type == "cpu"
        with torch.random.fork_rng(_cuda_devices(inputs)), torch.no_grad():
            if not ((on_cpu and self._try("native", lambda: self._compile(exact or function))) or self._map()):
                return
        self._step = self._run if self.native else self._mapped_step

    def __call__(self, slot: int | Tensor, alive: Sequence[int]) -> None:
        """Take the step of a slot, at least for these lanes. The number of the slot may be a tensor on the device."""
        try:
            self._step(slot, alive)
        except REFUSALS as refusal:  # a function may take another way at a later step
            if self.path != "eager" or _is_out_of_memory(refusal):
                raise
            self.refusals.append(f"vmap: {refusal}")
            self._step, self.path = self._plain, "looped"
            self._step(slot, alive)

    def _try(self, path: str, make: Callable[[], object]) -> bool:
        try:
            make()
        except REFUSALS as refusal:
            if _is_out_of_memory(refusal):
                raise
            self.refusals.append(f"{'vmap' if path == 'eager' else path}: {refusal}")
            return False
        except FAULTS as fault:
            self.refusals.append(f"{path}: {type(fault).__name__}: {fault}. {REPORT}")
            return False
        self.path = path
        return True

    # Compiled kernels

    def _compile(self, function: Function) -> None:
        memory = [writable(tensor) for tensor, _ in (*self._inputs, *self._outputs)]
        before = [tensor.clone() for tensor in memory]
        try:
            native = NativeProgram(function, self._inputs, self._outputs, self._parts, self._lanes.start)
            run = Run([native], self._seeds.numbers if self._seeds else ())
            ends = [range(self._parts)] if self._in_turn else [range(1), range(self._parts - 1, self._parts)]
            for row in sorted({0, len(self._lanes) - 1}):
                for parts in ends[: self._parts]:
                    self._check_native(run, function, row, parts)
        finally:
            for tensor, content in zip(memory, before, strict=True):
                tensor.copy_(content)
        self.native, self._compiled_run = native, run

    def _check_native(self, run: Run, function: Function, row: int, parts: range) -> None:
        """Compare what the program and the function compute for parts of a lane, first for what the inputs hold."""
        given, written = (
            [[axes.one(t, row, self._seed_of(row), part) for t, axes in some] for part in parts]
            for some in (self._inputs, self._outputs)
        )
        if row or parts.start or len(self._lanes) * self._parts == 1:
            for tensor in itertools.chain(*given):
                tensor.copy_(other_contents(tensor))
        before = [[tensor.clone() for tensor in of_part] for of_part in written]
        for tensors, of_part in zip(given, written, strict=True):
            for tensor, result in zip(of_part, function(*(tensor.clone() for tensor in tensors)), strict=True):
                tensor.copy_(result)
        expected = [[tensor.clone() for tensor in of_part] for of_part in written]
        for tensor, content in zip(itertools.chain(*written), itertools.chain(*before), strict=True):
            tensor.copy_(content)
        run([self._lanes.start + row])
        if not all(map(self._close, written, expected)):
            raise CannotCompile(f"its results differ from those of the function. {REPORT}")

    def _seed_of(self, row: int) -> int:
        return self._seeds.numbers[self._lanes.start + row] if self._seeds else 0

    def _run(self, slot: Any, alive: Sequence[int]) -> None:
        self._compiled_run(alive, slot, 1)

    # The function mapped over lanes and parts

    def _map(self) -> bool:
        given = [self._now(bound, 0).clone() for bound in self._inputs]
        if not self._try("eager", lambda: self._vmap(given)):
            return False
        self._try("replay", lambda: self._trace(given))
        return True

    def _vmap(self, given: Sequence[Tensor]) -> None:
        try:
            self._vmap_function(self._function, given)
        except REFUSALS as refusal:  # where it refuses operators of the function, it may support those of its graph
            if _is_out_of_memory(refusal):
                raise
            one = [axes.one(tensor, 0, self._seed_of(0)).clone() for tensor, axes in self._inputs]
            try:
                self._vmap_function(trace(self._function, one).module(), given)
            except CannotCompile:
                raise refusal from None

    def _vmap_function(self, function: Function, given: Sequence[Tensor]) -> None:
        of_parts, of_lanes = (
            tuple(0 if mapped else None for mapped in which)
            for which in zip(*((axes.part is not None, axes.of_lanes) for _, axes in self._inputs), strict=True)
        )
        mapped = vmap(function if self._in_turn or self._parts == 1 else vmap(function, of_parts), of_lanes)
        mapped(*(tensor.clone() for tensor in given))
        self._mapped: Function = mapped

    def _trace(self, given: Sequence[Tensor]) -> None:
        """Replay the operators of the mapped function, if they return what it does for other inputs too."""
        module = trace(self._mapped, given).module()
        for contents in (given, [other_contents(tensor) for tensor in given]):
            ours, theirs = (function(*(tensor.clone() for tensor in contents)) for function in (module, self._mapped))
            if not self._close(ours, theirs):
                raise CannotCompile("its results differ from those of the function")
        self._mapped = module

    def _mapped_step(self, slot: int | Tensor, alive: Sequence[int]) -> None:
        for part in range(self._parts if self._in_turn else 1):
            self._mapped_parts(slot, part)

    def _mapped_parts(self, slot: int | Tensor, part: int) -> None:
        """Compute all parts, or this one."""
        given = [
            fixed if fixed is not None else self._now(self._inputs[n], slot, part)
            for n, fixed in enumerate(self._fixed)
        ]
        if self.path == "eager":  # the function may write into what it gets
            given = [tensor.clone() for tensor in given]
        with torch.no_grad():
            results = self._mapped(*given)
        held = {tensor.untyped_storage().data_ptr() for tensor in given}
        # An input that is returned as it is may be another output too.
        results = [r.clone() if r.untyped_storage().data_ptr() in held else r for r in results]
        for bound, result in zip(self._outputs, results, strict=True):
            if isinstance(slot, Tensor) and bound[1].step is not None:
                bound[1].steps_first(bound[0]).index_copy_(0, slot, result.unsqueeze(0))
            else:
                self._now(bound, slot, part).copy_(result)

    @cached_property
    def _fixed(self) -> list[Tensor | None]:
        """The inputs that are the same memory at every step."""
        moves = [
            axes.step is not None or axes.seed is not None or (self._in_turn and axes.part is not None)
            for _, axes in self._inputs
        ]
        return [None if moving else self._now(bound, 0) for bound, moving in zip(self._inputs, moves, strict=True)]

    def _now(self, bound: Bound, slot: int | Tensor, part: int = 0) -> Tensor:
        """Return what all lanes and parts have at a step: [lanes, parts, ...]; parts in turn have no dimension."""
        tensor, axes = bound
        tensor = axes.of_step(tensor, slot)
        if axes.seed is not None and len(tensor) > 1:
            assert self._seeds is not None
            tensor = tensor.index_select(0, self._seeds.index[self._lanes.start : self._lanes.stop])
        elif axes.of_lanes:
            tensor = tensor.expand(len(self._lanes), *tensor.shape[1:])
        if axes.part is not None and (self._in_turn or self._parts == 1):
            tensor = tensor.select(int(axes.of_lanes), part)
        return tensor

    # The function for one lane after another

    @torch.no_grad()
    def _plain(self, slot: Any, alive: Sequence[int]) -> None:
        for lane in alive:
            for part in range(self._parts):
                row = lane - self._lanes.start
                place = row, self._seed_of(row), part, int(slot)
                results = self._function(*(axes.one(tensor, *place).clone() for tensor, axes in self._inputs))
                for (tensor, axes), result in zip(self._outputs, results, strict=True):
                    axes.one(tensor, *place).copy_(result)


def all_close(ours: Sequence[Tensor], theirs: Sequence[Tensor], rounding: float = 0.0) -> bool:
    """Whether results are equal up to the order of sums, relative to the largest number of each tensor.

    What should be 0, as the gradient of a bias before batch normalization, is a sum of numbers such as all others have.
    """
    largest = max(map(_largest, theirs), default=0.0)
    return all(_close(one, other, largest, rounding) for one, other in zip(ours, theirs, strict=True))


def _close(one: Tensor, other: Tensor, largest: float, rounding: float) -> bool:
    if one.is_meta:  # it has no numbers
        return one.shape == other.shape
    if not one.is_floating_point():
        return torch.equal(one, other)
    eps = torch.finfo(one.dtype).eps
    relative = max(2.0 * eps**0.75, 4 * rounding)  # 1e-5 at float32, 4e-12 at float64
    difference = max(relative * _largest(other), max(16 * eps, rounding) * largest)
    return torch.allclose(one, other, rtol=10 * relative, atol=difference, equal_nan=True)


def _largest(tensor: Tensor) -> float:
    has_numbers = tensor.is_floating_point() and not tensor.is_meta
    finite = tensor[tensor.isfinite()].abs() if has_numbers else torch.empty(0)
    return float(finite.max()) if finite.numel() else 0.0


def other_contents(contents: Tensor) -> Tensor:
    """Return other contents of the same kind: indices stay in range, signs and sizes of numbers nearly the same."""
    turned = contents.flip(tuple(range(contents.dim())))
    if not contents.is_floating_point():
        return turned
    random = torch.rand_like(turned)
    return torch.where(turned == 0, 0.01 * random, turned * (1 + 0.5 * random))


def writable(tensor: Tensor) -> Tensor:
    """Return a view with every element once: repeated elements of `expand` cannot be written to."""
    tensor = tensor.detach()
    for dimension, stride in enumerate(tensor.stride()):
        if stride == 0:
            tensor = tensor.narrow(dimension, 0, min(1, tensor.shape[dimension]))
    return tensor


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _cuda_devices(bound: Sequence[Bound]) -> list[torch.device]:
    return list({tensor.device for tensor, _ in bound if tensor.is_cuda})
