"""Functions of one lane, run for many lanes by the fastest method that supports them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.func import vmap

from clipbench.compiler.native_program import NativeProgram, Run, TensorAxes
from clipbench.compiler.trace import CannotCompile, trace

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
    ) -> None:
        """The tensors hold the lanes and the parts. `exact` is the function for compiled kernels, if that is another.

        What the inputs hold now is what the function is tried on, and stays as it is; outputs do not.
        """
        self._function, self._inputs, self._outputs = function, inputs, outputs
        self._lanes, self._parts = lanes, parts
        self.native: NativeProgram | None = None
        self.refusals: list[str] = []
        self._step, self.path = self._plain, "looped"
        on_cpu = outputs[0][0].device.type == "cpu"
        with torch.random.fork_rng(_cuda_devices(inputs)), torch.no_grad():
            if not ((on_cpu and self._try("native", lambda: self._compile(exact or function))) or self._map()):
                return
        self._step = self._run if self.native else self._mapped_step

    def __call__(self, slot: int, alive: Sequence[int]) -> None:
        """Take the step of a slot, at least for these lanes."""
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
            run = Run([native])
            for row in sorted({0, len(self._lanes) - 1}):
                for part in sorted({0, self._parts - 1}):
                    self._check_native(run, function, row, part)
        finally:
            for tensor, content in zip(memory, before, strict=True):
                tensor.copy_(content)
        self.native, self._compiled_run = native, run

    def _check_native(self, run: Run, function: Function, row: int, part: int) -> None:
        """Compare what the program and the function compute for a part of a lane, first for what the inputs hold."""
        given, written = ([axes.one(t, row, part) for t, axes in some] for some in (self._inputs, self._outputs))
        if (row, part) != (0, 0) or len(self._lanes) * self._parts == 1:
            for tensor in given:
                tensor.copy_(other_contents(tensor))
        expected = [result.clone() for result in function(*(tensor.clone() for tensor in given))]
        run([self._lanes.start + row])
        if not all(map(close, written, expected)):
            raise CannotCompile(f"its results differ from those of the function. {REPORT}")

    def _run(self, slot: int, alive: Sequence[int]) -> None:
        self._compiled_run(alive, slot, 1)

    # The function mapped over lanes and parts

    def _map(self) -> bool:
        given = [self._now(bound, 0).clone() for bound in self._inputs]
        if not self._try("eager", lambda: self._vmap(given)):
            return False
        self._try("replay", lambda: self._trace(given))
        return True

    def _vmap(self, given: Sequence[Tensor]) -> None:
        mapped = self._function
        for axis in ("part", "lane") if self._parts > 1 else ("lane",):
            dims = tuple(None if getattr(axes, axis) is None else 0 for _, axes in self._inputs)
            mapped = vmap(mapped, in_dims=dims)
        mapped(*(tensor.clone() for tensor in given))
        self._mapped: Function = mapped

    def _trace(self, given: Sequence[Tensor]) -> None:
        """Replay the operators of the mapped function, if they return what it does for other inputs too."""
        module = trace(self._mapped, given).module()
        for contents in (given, [other_contents(tensor) for tensor in given]):
            ours, theirs = (function(*(tensor.clone() for tensor in contents)) for function in (module, self._mapped))
            if not all(map(close, ours, theirs)):
                raise CannotCompile("its results differ from those of the function")
        self._mapped = module

    def _mapped_step(self, slot: int, alive: Sequence[int]) -> None:
        given = [
            fixed if fixed is not None else self._now(self._inputs[n], slot) for n, fixed in enumerate(self._fixed)
        ]
        if self.path == "eager":  # the function may write into what it gets
            given = [tensor.clone() for tensor in given]
        with torch.no_grad():
            results = self._mapped(*given)
        held = {tensor.untyped_storage().data_ptr() for tensor in given}
        # An input that is returned as it is may be another output too.
        results = [r.clone() if r.untyped_storage().data_ptr() in held else r for r in results]
        for bound, result in zip(self._outputs, results, strict=True):
            self._now(bound, slot).copy_(result)

    @cached_property
    def _fixed(self) -> list[Tensor | None]:
        """The inputs that are the same memory at every step."""
        return [self._now(bound, 0) if bound[1].step is None else None for bound in self._inputs]

    def _now(self, bound: Bound, slot: int) -> Tensor:
        """Return what all lanes and parts have at a step: [lanes, parts, ...]; one part has no dimension."""
        tensor, axes = bound
        tensor = axes.of_step(tensor, slot)
        if axes.lane is not None:
            tensor = tensor.expand(len(self._lanes), *tensor.shape[1:])
        if axes.part is not None and self._parts == 1:
            tensor = tensor.select(int(axes.lane is not None), 0)
        return tensor

    # The function for one lane after another

    @torch.no_grad()
    def _plain(self, slot: int, alive: Sequence[int]) -> None:
        for lane in alive:
            for part in range(self._parts):
                place = lane - self._lanes.start, part, slot
                results = self._function(*(axes.one(tensor, *place).clone() for tensor, axes in self._inputs))
                for (tensor, axes), result in zip(self._outputs, results, strict=True):
                    axes.one(tensor, *place).copy_(result)


def close(one: Tensor, other: Tensor) -> bool:
    """Whether both are equal up to the order of sums, relative to the largest number of the tensor."""
    if not one.is_floating_point():
        return torch.equal(one, other)
    finite = other[other.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    relative = 2.0 * torch.finfo(one.dtype).eps ** 0.75  # 1e-5 at float32, 4e-12 at float64
    return torch.allclose(one, other, rtol=10 * relative, atol=relative * scale, equal_nan=True)


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
