"""Owns the static plan: an aten graph as a straight list of kernels that write into memory chosen beforehand."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from clipbench.engine import graph as graphs
from clipbench.engine.graph import FACTORIES, RESHAPES, Unplannable, aten
from clipbench.engine.kernels import Call, kernels

BYTES = torch.uint8


@dataclass
class Plan:
    """Calls to make in order; everything they read and write stands still."""

    calls: list[Call]
    workspace_bytes: int

    def __call__(self) -> None:
        with torch.inference_mode():
            for call in self.calls:
                call()


@dataclass
class Buffers:
    """Memory that is used again as soon as nobody reads it any more."""

    device: torch.device
    free: list[Tensor] = field(default_factory=list)
    total_bytes: int = 0

    def take(self, size: int) -> Tensor:
        """At least `size` bytes, the tightest fit that does not waste more than it holds."""
        fitting = [b for b in self.free if size <= b.numel() <= max(2 * size, size + 4096)]
        if not fitting:
            self.total_bytes += size
            return torch.empty(max(size, 1), dtype=BYTES, device=self.device)
        best = min(fitting, key=torch.Tensor.numel)
        self.free = [b for b in self.free if b is not best]
        return best

    def give(self, memory: Sequence[Tensor]) -> None:
        self.free.extend(memory)


def lower(module: GraphModule, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Plan:
    """The plan that computes the graph of `module` from `inputs` into `outputs`."""
    with torch.inference_mode():
        return _Lowering(module, inputs, outputs).run()


class _Lowering:
    """One walk over the graph, which decides for every value where it lives."""

    def __init__(self, module: GraphModule, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        self.module, self.graph = module, module.graph
        self.inputs, self.outputs = iter(inputs), outputs
        self.root = graphs.roots(self.graph)
        self.written = graphs.written(self.graph)
        self.results = list(graphs.results(self.graph))
        self.last = graphs.last_uses(self.graph, self.root)
        self.buffers = Buffers(outputs[0].device)
        self.owned: dict[Node, list[Tensor]] = {}  # memory to give back after the root's last use
        self.values: dict[Node, Any] = {}
        self.constant: set[Node] = set()
        self.calls: list[Call] = []
        overlapping = {i for i, o in enumerate(outputs) if any(_overlap(o, x) for x in inputs)}
        self.homes = self._homes(overlapping)

    def run(self) -> Plan:
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(self.inputs)
            elif node.op == "get_attr":
                self.values[node] = getattr(self.module, node.target)
                self.constant.add(node)
            elif node.op == "call_function":
                self._place(node)
                self._release(node)
        self._copy_results()
        return Plan(self.calls, self.buffers.total_bytes)

    def _place(self, node: Node) -> None:
        arguments, keywords = self._given(node.args), self._given(node.kwargs)
        if node.target is operator.getitem:
            self.values[node] = arguments[0][arguments[1]]
            self.constant.update({node} & self._constant_if(node))
        elif self._is_constant(node):
            self.constant.add(node)
            self.values[node] = node.target(*arguments, **keywords)  # type: ignore[operator]
        elif node.target in RESHAPES:
            self.values[node] = _viewed(arguments[0], arguments[1])
        elif graphs.is_view(node.target):
            self.values[node] = node.target(*arguments, **keywords)  # type: ignore[operator]
        elif node.target._schema.is_mutable:  # type: ignore[union-attr]
            if next(graphs.written_arguments(node), None) is not node.args[0]:
                raise Unplannable(f"{node.target} writes elsewhere than into its first argument")
            self.values[node] = arguments[0]
            self._emit([partial(node.target._op, *arguments, **keywords)])  # type: ignore[union-attr]
        else:
            self.values[node] = out = self._memory(node)
            self._emit(kernels(node.target, arguments, keywords, out))

    def _emit(self, candidates: Iterable[Call]) -> None:
        """Run the first call that works, so that kernels further down meet real numbers, and keep it."""
        for call in candidates:
            try:
                call()
            except TypeError:
                continue
            self.calls.append(call)
            return

    def _constant_if(self, node: Node) -> set[Node]:
        return {node} if all(i in self.constant for i in node.all_input_nodes) else set()

    def _is_constant(self, node: Node) -> bool:
        """Whether a value is the same in every step, so that it is computed now, once."""
        if self.root[node] in self.written or node.target._schema.is_mutable:  # type: ignore[union-attr]
            return False
        name = node.target._schema.name.split("::")[1]  # type: ignore[union-attr]
        return name in FACTORIES and not _fills_with_tensor(node) or bool(self._constant_if(node))

    def _given(self, argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, self.values.__getitem__)

    # Where a value lives: in its output, in an argument that dies here, in memory of its own.

    def _memory(self, node: Node) -> Any:
        layout = graphs.value(node)
        if isinstance(layout, (tuple, list)):
            self.owned[node] = []
            return tuple(self._fresh(node, part) if isinstance(part, Tensor) else None for part in layout)
        if not isinstance(layout, Tensor):
            raise Unplannable(f"{node.target} returns no tensor")
        if node in self.homes:
            return self.homes[node]
        inherited = self._inherited(node, layout)
        if inherited is not None:
            return inherited
        self.owned[node] = []
        return self._fresh(node, layout)

    def _fresh(self, node: Node, layout: Tensor) -> Tensor:
        memory = self.buffers.take(_extent(layout) * layout.element_size())
        self.owned[node].append(memory)
        flat = memory[: memory.numel() // layout.element_size() * layout.element_size()].view(layout.dtype)
        return flat.as_strided(layout.shape, layout.stride())

    def _inherited(self, node: Node, layout: Tensor) -> Tensor | None:
        """An argument of the same layout that nobody reads after this elementwise kernel."""
        if node.target is aten.baddbmm.default:
            candidates = node.all_input_nodes[:1]
        elif torch.Tag.pointwise in node.target.tags:  # type: ignore[union-attr]
            candidates = node.all_input_nodes
        else:
            return None
        for candidate in candidates:
            root, held = self.root[candidate], self.values[candidate]
            if (
                root in self.owned
                and self.last[root] is node
                and _same_layout(held, layout)
                and all(i is candidate or self.root[i] is not root for i in node.all_input_nodes)
            ):
                self.owned[node] = self.owned.pop(root)
                return held
        return None

    def _release(self, node: Node) -> None:
        ended = {self.root[i] for i in (node, *node.all_input_nodes)}
        for root in ended:
            if self.last[root] is node and root in self.owned:
                self.buffers.give(self.owned.pop(root))

    # Results

    def _homes(self, overlapping: set[int]) -> dict[Node, Tensor]:
        """For kernels that compute a result: the output that they write to directly."""
        homes: dict[Node, Tensor] = {}
        for position, (result, output) in enumerate(zip(self.results, self.outputs, strict=True)):
            if isinstance(result, Node) and position not in overlapping:
                source, home = _unviewed(result, output)
                fits = home is not None and self.root[source] is source and source.op == "call_function"
                if fits and source not in homes and _same_layout(home, graphs.value(source)):
                    homes[source] = home  # type: ignore[assignment]
        return homes

    def _copy_results(self) -> None:
        for result, output in zip(self.results, self.outputs, strict=True):
            computed = self.values[result] if isinstance(result, Node) else result
            if not isinstance(computed, Tensor) or computed.shape != output.shape:
                raise Unplannable(f"a result does not fit its output of shape {tuple(output.shape)}")
            if computed.data_ptr() != output.data_ptr() or not _same_layout(computed, output):
                self.calls.append(partial(output.copy_, computed))


def _unviewed(node: Node, home: Tensor) -> tuple[Node, Tensor | None]:
    """Undo the views between a result and the kernel that computed it, on the memory it shall land in."""
    view: Tensor | None = home
    while view is not None and node.op == "call_function" and graphs.is_view(node.target):
        source = node.args[0]
        assert isinstance(source, Node)
        view = _undo(node, view, graphs.value(source))
        node = source
    return node, view


def _undo(node: Node, view: Tensor, source: Tensor) -> Tensor | None:
    if node.target in RESHAPES:
        return view.view(source.shape) if view.is_contiguous() else None
    if node.target is aten.transpose.int:
        return view.transpose(node.args[1], node.args[2])  # type: ignore[call-overload, no-any-return]
    if node.target is aten.permute.default:
        order: Any = node.args[1]
        return view.permute([order.index(d) for d in range(len(order))])
    if node.target in (aten.detach.default, aten.alias.default):
        return view
    if node.target in (aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default) and view.is_contiguous():
        return view.view(source.shape)
    return None


def _viewed(held: Tensor, shape: Sequence[int]) -> Tensor:
    try:
        return held.view(shape)
    except RuntimeError as error:
        raise Unplannable(str(error)) from error


def _fills_with_tensor(node: Node) -> bool:
    return len(node.all_input_nodes) > 1


def _same_layout(one: Tensor, other: Tensor) -> bool:
    """Same type and shape, and the same place for every element."""
    if one.shape != other.shape or one.dtype != other.dtype or one.device.type != other.device.type:
        return False
    return all(a == b for size, a, b in zip(one.shape, one.stride(), other.stride(), strict=True) if size > 1)


def _extent(layout: Tensor) -> int:
    """How many elements of memory a layout spans."""
    if layout.numel() == 0:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(layout.shape, layout.stride(), strict=True))


def _overlap(one: Tensor, other: Tensor) -> bool:
    start, stop = one.data_ptr(), one.data_ptr() + _extent(one) * one.element_size()
    first, end = other.data_ptr(), other.data_ptr() + _extent(other) * other.element_size()
    return start < end and first < stop
