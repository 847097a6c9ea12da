"""Turns a pure function of fixed tensors into the fastest program that computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from clipbench.engine.compiler.lower import lower
from clipbench.engine.compiler.rewrites import simplify
from clipbench.engine.compiler.trace import Unplannable, Untraceable, trace
from clipbench.engine.native.native_program import NativeProgram, Run, TensorAxes

Function = Callable[..., Sequence[Tensor]]

PATHS = ("native", "plan", "replay", "eager")
# What tracing and lowering raise for functions that they do not support.
REFUSALS = (
    *(Unplannable, NotImplementedError, RuntimeError, TypeError, ValueError),
    *(AssertionError, AttributeError, IndexError, KeyError),
)


@dataclass(frozen=True)
class Program:
    """A compiled function, from its inputs into its outputs; `path`, one of `PATHS`, says how it runs."""

    path: str
    step: Callable[[], None]
    workspace_bytes: int = 0
    refusals: tuple[str, ...] = ()  # why the faster paths were not taken

    def __call__(self) -> None:
        self.step()


def build(
    function: Function,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    allow: Sequence[str] = PATHS,
    of_lane: Function | None = None,
) -> Program:
    """Return the fastest program that writes what `function(*inputs)` returns into `outputs`.

    `of_lane` is the function of one lane, for compiled kernels.
    `inputs` are the tensors that every step reads, `outputs` those that it writes. A plan or a replay is used only if
    it agrees with the function on these inputs and on others. `inputs` are unchanged afterwards, `outputs` are not.
    """
    eager = Program("eager", partial(_run_and_copy, function, inputs, outputs))
    makers = [(path, make) for path, make in (("plan", _plan), ("replay", _replay)) if path in allow]
    if of_lane and "native" in allow and outputs[0].device.type == "cpu":
        makers = [("native", partial(_native, of_lane)), *makers]
    original = [writable(x).clone() for x in inputs] if makers else []
    refusals: list[str] = []
    for path, make in makers:
        try:
            with torch.random.fork_rng(_cuda_devices(inputs)):
                program = make(function, inputs, outputs)
                _compare(program, eager, inputs, outputs, original)
            return replace(program, refusals=tuple(refusals))
        except REFUSALS as refusal:
            refusals.append(f"{path}: {refusal}")
            if isinstance(refusal, Untraceable):
                break
        finally:
            _fill(inputs, original)
    return replace(eager, refusals=tuple(refusals))


def _native(
    of_lane: Function,
    _: Function,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
) -> Program:
    given, written = ([(tensor, TensorAxes()) for tensor in some] for some in (inputs, outputs))
    native = NativeProgram(of_lane, given, written)
    run = partial(Run([native]), range(len(outputs[0])))
    return Program("native", run, native.workspace_bytes)


def _plan(function: Function, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Program:
    module = trace(function, inputs)
    simplify(module.graph)
    plan = lower(module, inputs, outputs)
    return Program("plan", plan, plan.workspace_bytes)


def _replay(function: Function, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Program:
    return Program("replay", partial(_run_and_copy, trace(function, inputs), inputs, outputs))


@torch.no_grad()
def _run_and_copy(function: Function, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    given = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    results = function(*inputs)
    # An input that is returned as it is may be another output too.
    results = [r.clone() if r.untyped_storage().data_ptr() in given else r for r in results]
    for output, result in zip(outputs, results, strict=True):
        output.copy_(result)


# Comparison with the function


def _compare(
    program: Program,
    eager: Program,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    original: Sequence[Tensor],
) -> None:
    """Raise if a program and the function return different numbers, for these or for other inputs."""
    for contents in (original, [other_contents(x) for x in original]):
        ours = _outputs_of(program, inputs, outputs, contents)
        theirs = _outputs_of(eager, inputs, outputs, contents)
        if not all(map(close, ours, theirs)):
            raise Unplannable("its results differ from those of the function")


def _outputs_of(
    program: Program, inputs: Sequence[Tensor], outputs: Sequence[Tensor], contents: Sequence[Tensor]
) -> list[Tensor]:
    _fill(inputs, contents)
    program()
    return [output.clone() for output in outputs]


def close(one: Tensor, other: Tensor) -> bool:
    """Whether both are equal up to the order of sums, relative to the largest number of the tensor."""
    if not one.is_floating_point():
        return torch.equal(one, other)
    finite = other[other.isfinite()].abs()
    scale = float(finite.max()) if finite.numel() else 0.0
    relative = 2.0 * torch.finfo(one.dtype).eps ** 0.75  # 1e-5 at float32, 4e-12 at float64
    return torch.allclose(one, other, rtol=10 * relative, atol=relative * scale, equal_nan=True)


def other_contents(contents: Tensor) -> Tensor:
    """Return other contents of the same kind: indices stay in range, and positive numbers positive."""
    turned = contents.flip(tuple(range(contents.dim())))
    return turned * 1.25 + torch.rand_like(turned) / 8 if contents.is_floating_point() else turned


def _cuda_devices(tensors: Sequence[Tensor]) -> list[torch.device]:
    return list({tensor.device for tensor in tensors if tensor.is_cuda})


def _fill(inputs: Sequence[Tensor], contents: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tensor, content in zip(inputs, contents, strict=True):
            writable(tensor).copy_(content)


def writable(tensor: Tensor) -> Tensor:
    """Return a view with every element once: repeated elements of `expand` cannot be written to."""
    tensor = tensor.detach()
    for dimension, stride in enumerate(tensor.stride()):
        if stride == 0:
            tensor = tensor.narrow(dimension, 0, min(1, tensor.shape[dimension]))
    return tensor
