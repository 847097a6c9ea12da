"""Placement: the memory of every value of a graph, and the calls that write into it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import Graph, Node

from clipbench.compiler import trace as graphs
from clipbench.compiler.memory import MemoryPool, extent, overlap, same_layout
from clipbench.compiler.trace import FACTORIES, RESHAPES, CannotCompile, Operation, Traced, aten

# Kernels that read each element of their arguments before they write it.
IN_PLACE = (
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor),
    *(aten.addcmul.default, aten.addcdiv.default, aten.where.self, aten.maximum.default, aten.minimum.default),
)

# Returns calls that write the result of an operator into memory: (operator, arguments, keywords, memory).
Kernels = Callable[[Any, Sequence[Any], dict[str, Any], Any], list[Any]]


def place(traced: Traced, inputs: Sequence[Tensor], outputs: Sequence[Tensor], kernels: Kernels) -> list[Any]:
    """Choose the memory of every value; return the calls of its kernels in order."""
    return _Placement(traced, inputs, outputs, kernels).run()


class _Placement:
    """One pass over the graph, which chooses the memory of every value."""

    def __init__(self, traced: Traced, inputs: Sequence[Tensor], outputs: Sequence[Tensor], kernels: Kernels) -> None:
        self.kernels, self.constants, self.graph = kernels, traced.constants, traced.graph
        self.inputs, self.outputs = iter(inputs), outputs
        self.root = graphs.roots(self.graph)
        self.written = graphs.written(self.graph)
        self.results = list(graphs.results(self.graph))
        self.last = graphs.last_uses(self.graph, self.root)
        self.destinations = _of_results(self.results, outputs, inputs, self.graph, self.root, self.last)
        self.pool = MemoryPool(outputs[0].device)
        self.owned: dict[Node, list[Tensor]] = {}  # memory to release after the last use of the root
        self.values: dict[Node, Any] = {}
        self.constant: set[Node] = set()
        self.calls: list[Any] = []

    def run(self) -> list[Any]:
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = next(self.inputs)
            elif node.op == "get_attr":
                self.values[node] = self.constants[node.target]
                self.constant.add(node)
            elif node.op == "call_function":
                self._place(node)
                self._release(node)
        self._copy_results()
        return self.calls

    def _place(self, node: Operation) -> None:
        arguments, keywords = self._given(node.args), self._given(node.kwargs)
        if node.target is operator.getitem:
            self.values[node] = arguments[0][arguments[1]]
            self.constant.update({node} & self._constant_if(node))
        elif self._is_constant(node):
            self.constant.add(node)
            constant = node.target(*arguments, **keywords)
            self.values[node] = constant.to(graphs.value(node).dtype) if isinstance(constant, Tensor) else constant
        elif node.target in RESHAPES:
            self.values[node] = view = _viewed(arguments[0], arguments[1])
            if view is None:
                raise CannotCompile(f"a value of shape {tuple(arguments[0].shape)} has no view {tuple(arguments[1])}")
        elif graphs.is_view(node.target):
            self.values[node] = node.target(*arguments, **keywords)
        elif node.target._schema.is_mutable:
            if next(graphs.written_arguments(node), None) is not node.args[0]:
                raise CannotCompile(f"{node.target} writes elsewhere than into its first argument")
            self.values[node] = arguments[0]
            self._emit(node.target, arguments, keywords, arguments[0])
        else:
            self.values[node] = out = self._memory(node)
            self._emit(node.target, arguments, keywords, out)

    def _emit(self, target: Any, arguments: Sequence[Any], keywords: Any, out: Any) -> None:
        self.calls += self.kernels(target, arguments, keywords, out)

    def _constant_if(self, node: Operation) -> set[Node]:
        return {node} if all(i in self.constant for i in node.all_input_nodes) else set()

    def _is_constant(self, node: Operation) -> bool:
        """Whether a value is the same in every step: it is computed once, now."""
        if self.root[node] in self.written or node.target._schema.is_mutable:
            return False
        name = node.target._schema.name.split("::")[1]
        return (name in FACTORIES and not _fills_with_tensor(node)) or bool(self._constant_if(node))

    def _given(self, argument: Any) -> Any:
        return torch.fx.node.map_arg(argument, self.values.__getitem__)

    # The memory of a value: an output, an argument that is not read afterwards, or new memory.

    def _memory(self, node: Operation) -> Any:
        layout = graphs.value(node)
        if isinstance(layout, (tuple, list)):
            self.owned[node] = []
            return tuple(self._fresh(node, part) if isinstance(part, Tensor) else None for part in layout)
        if not isinstance(layout, Tensor):
            raise CannotCompile(f"{node.target} returns no tensor")
        if node in self.destinations:
            return self.destinations[node]
        inherited = self._inherited(node, layout)
        if inherited is not None:
            return inherited
        self.owned[node] = []
        return self._fresh(node, layout)

    def _fresh(self, node: Operation, layout: Tensor) -> Tensor:
        memory = self.pool.allocate(extent(layout) * layout.element_size())
        self.owned[node].append(memory)
        flat = memory[: memory.numel() // layout.element_size() * layout.element_size()].view(layout.dtype)
        return flat.as_strided(layout.shape, layout.stride())

    def _inherited(self, node: Operation, layout: Tensor) -> Tensor | None:
        """Return the memory of an argument of the same layout that is not read after this elementwise kernel."""
        if node.target in (aten.baddbmm.default, aten.addmm.default):
            candidates = node.all_input_nodes[:1]
        elif torch.Tag.pointwise in node.target.tags:
            candidates = node.all_input_nodes
        else:
            return None
        for candidate in candidates:
            root, held = self.root[candidate], self.values[candidate]
            if (
                root in self.owned
                and candidate not in self.constant
                and self.last[root] is node
                and same_layout(held, layout)
                and all(i is candidate or self.root[i] is not root for i in node.all_input_nodes)
            ):
                self.owned[node] = self.owned.pop(root)
                return cast(Tensor, held)
        return None

    def _release(self, node: Operation) -> None:
        ended = {self.root[i] for i in (node, *node.all_input_nodes)}
        for root in ended:
            if self.last[root] is node and root in self.owned:
                self.pool.release(self.owned.pop(root))

    def _copy_results(self) -> None:
        computed_results = [self.values[result] if isinstance(result, Node) else result for result in self.results]
        for number, (computed, output) in enumerate(zip(computed_results, self.outputs, strict=True)):
            if not isinstance(computed, Tensor) or computed.shape != output.shape:
                raise CannotCompile(f"a result does not have the shape of its output, {tuple(output.shape)}")
            # An input that is returned as it is may be another output too, which is written before.
            if any(overlap(computed, earlier) for earlier in self.outputs[:number]):
                computed_results[number] = kept = torch.empty_like(computed)
                self._emit(aten.copy_.default, (kept, computed), {}, kept)
        for computed, output in zip(computed_results, self.outputs, strict=True):
            if computed.data_ptr() != output.data_ptr() or not same_layout(computed, output):
                self._emit(aten.copy_.default, (output, computed), {}, output)


def _of_results(
    results: Sequence[Any],
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    graph: Graph,
    root: Mapping[Node, Node],
    last: Mapping[Node, Node],
) -> dict[Node, Tensor]:
    """Return, for kernels that compute a result, the output to write to."""
    destinations: dict[Node, Tensor] = {}
    place = {node: number for number, node in enumerate(graph.nodes)}
    given = list(zip((node for node in graph.nodes if node.op == "placeholder"), inputs, strict=True))
    for result, output in zip(results, outputs, strict=True):
        if not isinstance(result, Node):
            continue
        source, target = _unviewed(result, output)
        if target is None or source in destinations or not _computes(source, root):
            continue
        taken = [(node, held) for node, held in given if overlap(output, held)]
        free = all(
            place[last[node]] < place[source] or (last[node] is source and _updates(source, held, target))
            for node, held in taken
        )
        if free and same_layout(target, graphs.value(source)):
            destinations[source] = target
    return destinations


def _updates(source: Operation, held: Tensor, target: Tensor) -> bool:
    """Whether a kernel may write over an argument that it reads: element by element, in the same place."""
    same = held.data_ptr() == target.data_ptr() and same_layout(held, target)
    return same and source.target in IN_PLACE


def _unviewed(node: Node, target: Tensor) -> tuple[Node, Tensor | None]:
    """Undo the views between a result and the kernel that computed it, on the memory that it is written to."""
    view: Tensor | None = target
    while view is not None and node.op == "call_function" and graphs.is_view(node.target):
        source = node.args[0]
        assert isinstance(source, Node)
        view = _undo(node, view, graphs.value(source))
        node = source
    return node, view


def _undo(node: Operation, view: Tensor, source: Tensor) -> Tensor | None:
    if node.target in RESHAPES:
        return _viewed(view, source.shape)
    if node.target is aten.transpose.int:
        return view.transpose(node.args[1], node.args[2])
    if node.target is aten.t.default:
        return view.t()
    if node.target is aten.permute.default:
        order: Any = node.args[1]
        return view.permute([order.index(d) for d in range(len(order))])
    if node.target in (aten.detach.default, aten.alias.default):
        return view
    if node.target in (aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default):
        return _viewed(view, source.shape)
    return None


def _computes(source: Node, root: Mapping[Node, Node]) -> bool:
    """Whether it is a kernel that owns one result."""
    return source.op == "call_function" and root[source] is source and isinstance(graphs.value(source), Tensor)


def _viewed(held: Tensor, shape: Sequence[int]) -> Tensor | None:
    try:
        return held.view(shape)
    except RuntimeError:  # its rows are not contiguous
        return None


def _fills_with_tensor(node: Operation) -> bool:
    return len(node.all_input_nodes) > 1
