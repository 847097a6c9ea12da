"""Functions of one lane, turned into programs that run for many lanes: compiled kernels, `vmap`, or plain calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from clipbench.engine.compiler import program
from clipbench.engine.compiler.trace import Unplannable
from clipbench.engine.native.native_program import NativeProgram, Run, TensorAxes

Values = Mapping[str, Tensor]
OfLane = Callable[[Values], Values]

# What tracing and `vmap` raise for functions that they do not support.
REFUSALS = (Unplannable, NotImplementedError, RuntimeError, TypeError, ValueError)


@dataclass
class NamedTensors:
    """Tensors by name, and which of their dimensions are over lanes, parts and steps."""

    tensors: dict[str, Tensor]
    axes: dict[str, TensorAxes]

    def pairs(self, names: Sequence[str]) -> list[tuple[Tensor, TensorAxes]]:
        return [(self.tensors[name], self.axes[name]) for name in names]

    def now(self, name: str, slot: int) -> Tensor:
        """Return what lanes have at a step: [lanes, ...]."""
        tensor, axes = self.tensors[name], self.axes[name]
        if axes.step is not None:
            tensor = tensor.select(axes.step, slot)
        if axes.lane:
            tensor = tensor.movedim(axes.lane - (axes.step is not None and axes.step < axes.lane), 0)
        return tensor


class Lowered:
    """A function of one lane, from tensors by name to others; call it to take one step for all lanes."""

    def __init__(
        self,
        function: OfLane,
        exact: OfLane | None,
        bound: NamedTensors,
        inputs: Sequence[str],
        outputs: Sequence[str],
        lanes: range,
    ) -> None:
        """`exact` is the function for compiled kernels; None if there are none for it."""
        self._bound, self._inputs, self._outputs, self._lanes = bound, inputs, outputs, lanes
        self.native: NativeProgram | None = None
        self.refusals: list[str] = []
        if exact is not None:
            try:
                self.native = self._compiled(exact)
                self.path = "native"
                self._run = Run([self.native])
                return
            except REFUSALS as refusal:
                self.refusals.append(f"native: {refusal}")
        self._function = function
        self._now = {name: bound.now(name, 0) for name in (*inputs, *outputs)}
        self._moving = [name for name in inputs if bound.axes[name].step is not None]
        self._recorded = [name for name in outputs if bound.axes[name].step is not None]
        for name in {*self._moving, *self._recorded}:
            self._now[name] = self._now[name].clone()
        self._step = self._mapped() or self._plain
        self.path = "looped" if self._step == self._plain else self._program.path

    def __call__(self, slot: int, alive: Sequence[int]) -> None:
        """Take the step of a slot, at least for these lanes."""
        if self.native:
            self._run(alive, slot, 1)
            return
        for name in self._moving:
            self._now[name].copy_(self._bound.now(name, slot))
        try:
            self._step()
        except REFUSALS as refusal:  # a function may take another way at a later step
            if self.path == "looped":
                raise
            self.refusals.append(f"vmap: {refusal}")
            self._step, self.path = self._plain, "looped"
            self._step()
        for name in self._recorded:
            self._bound.now(name, slot).copy_(self._now[name])

    def _compiled(self, function: OfLane) -> NativeProgram:
        bound = self._bound

        def of_lane(*tensors: Tensor) -> list[Tensor]:
            results = function(dict(zip(self._inputs, tensors, strict=True)))
            return [results[name] for name in self._outputs]

        inputs, outputs = bound.pairs(self._inputs), bound.pairs(self._outputs)
        native = NativeProgram(of_lane, inputs, outputs, first_lane=self._lanes.start)
        check(native, of_lane, inputs, outputs, len(self._lanes))
        return native

    def _mapped(self) -> Callable[[], None] | None:
        """Return the function mapped over lanes; None if that is not supported."""
        dims = tuple(None if self._bound.axes[name].lane is None else 0 for name in self._inputs)

        def function(*tensors: Tensor) -> list[Tensor]:
            def of_lane(*tensors: Tensor) -> list[Tensor]:
                results = self._function(dict(zip(self._inputs, tensors, strict=True)))
                return [results[name] for name in self._outputs]

            mapped: list[Tensor] = vmap(of_lane, in_dims=dims)(*tensors)
            return mapped

        inputs, outputs = ([self._now[name] for name in names] for names in (self._inputs, self._outputs))
        try:
            with torch.no_grad():
                function(*inputs)
            self._program = program.build(function, inputs, outputs)
        except REFUSALS as refusal:
            self.refusals.append(f"vmap: {refusal}")
            return None
        self.refusals += self._program.refusals
        return self._program

    @torch.no_grad()
    def _plain(self) -> None:
        """Call the function for one lane after another."""
        for lane in range(len(self._lanes)):
            given = {
                name: self._now[name] if self._bound.axes[name].lane is None else self._now[name][lane]
                for name in self._inputs
            }
            results = self._function({name: value.clone() for name, value in given.items()})
            for name in self._outputs:
                self._now[name][lane].copy_(results[name])


def check(
    native: NativeProgram,
    of_part: Callable[..., Sequence[Tensor]],
    inputs: Sequence[tuple[Tensor, TensorAxes]],
    outputs: Sequence[tuple[Tensor, TensorAxes]],
    lanes: int,
) -> None:
    """Raise if the program and the function return different numbers for the first lane or the last."""
    places = [(lane, part) for lane in sorted({0, lanes - 1}) for part in sorted({0, native.parts - 1})]
    given = [[axes.one(tensor, *place) for tensor, axes in inputs] for place in places]
    written = [[axes.one(tensor, *place) for tensor, axes in outputs] for place in places]
    memory = [tensor for tensor, _ in (*inputs, *outputs)]
    before = [program.writable(tensor).clone() for tensor in memory]
    run = Run([native])
    for place, mine, theirs in zip(places, given, written, strict=True):
        if place == places[-1]:
            for tensor in mine:
                tensor.copy_(program.other_contents(tensor))
        with torch.no_grad():
            expected = [result.clone() for result in of_part(*(tensor.clone() for tensor in mine))]
        run([native.first_lane + place[0]])
        agree = all(map(program.close, theirs, expected))
        for tensor, content in zip(memory, before, strict=True):
            program.writable(tensor).copy_(content)
        if not agree:
            raise Unplannable("its results differ from those of the function: please report it")
