"""Lowering: turns a graph into a static plan, a list of kernels that write into preallocated memory."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves, tree_map_only

from clipbench.engine.compiler import placement
from clipbench.engine.compiler import trace as graphs
from clipbench.engine.compiler.kernels import COPIES, Call, torch_kernels
from clipbench.engine.compiler.memory import MemoryPool, extent, overlap, same_layout
from clipbench.engine.compiler.trace import FACTORIES, RESHAPES, Operation, Unplannable, aten


@dataclass
class KernelPlan:
    """Calls to make in order; all memory that they read and write is fixed."""

    calls: list[Call]
    workspace_bytes: int

    def __call__(self) -> None:
        with torch.inference_mode():
            for call in self.calls:
                call()


# Returns calls that write the result of an operator into memory: (operator, arguments, keywords, memory).
Kernels = Callable[[Any, Sequence[Any], dict[str, Any], Any], list[Any]]


def lower(module: GraphModule, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> KernelPlan:
    """Return the plan that computes the graph of `module` from `inputs` into `outputs`."""
    with torch.inference_mode():
        try:
            return KernelPlan(*place(module, inputs, outputs, torch_kernels, thrifty=True))
        except Unplannable:  # a view may need the rows that were left out, or contiguous values
            return KernelPlan(*place(module, inputs, outputs, torch_kernels, thrifty=False))


def place(
    module: GraphModule, inputs: Sequence[Tensor], outputs: Sequence[Tensor], kernels: Kernels, thrifty: bool
) -> tuple[list[Any], int]:
    """Choose the memory of every value; return the calls of its kernels in order, and the bytes of that memory."""
    return _Lowering(module, inputs, outputs, kernels, thrifty).run()


class _Lowering:
    """One pass over the graph, which chooses the memory of every value."""

    def __init__(
        self,
        module: GraphModule,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        kernels: Kernels,
        thrifty: bool,
    ) -> None:
        self.kernels, self.thrifty = kernels, thrifty
        self.module, self.graph = module, module.graph
        self.inputs, self.outputs = iter(inputs), outputs
        self.root = graphs.roots(self.graph)
        self.written = graphs.written(self.graph)
        self.results = list(graphs.results(self.graph))
        last = graphs.last_uses(self.graph, self.root)
        self.destinations = placement.of_results(self.results, outputs, inputs, self.graph, self.root, last)
        self.parts = placement.of_parts(self.graph, self.root, {*self.written, *self.destinations}) if thrifty else {}
        self.root = placement.wholes(self.root, self.parts)
        self.wholes: dict[Node, Tensor] = {}  # of joins that are not computed yet
        self.last = graphs.last_uses(self.graph, self.root)
        self.pool = MemoryPool(outputs[0].device)
        self.owned: dict[Node, list[Tensor]] = {}  # memory to release after the last use of the root
        self.values: dict[Node, Any] = {}
        self.constant: set[Node] = set()
        self.calls: list[Any] = []

    def run(self) -> tuple[list[Any], int]:
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
        return self.calls, self.pool.total_bytes

    def _place(self, node: Operation) -> None:
        arguments, keywords = self._given(node.args), self._given(node.kwargs)
        if node.target is operator.getitem:
            self.values[node] = arguments[0][arguments[1]]
            self.constant.update({node} & self._constant_if(node))
        elif self._is_constant(node):
            self.constant.add(node)
            self.values[node] = node.target(*arguments, **keywords)
        elif node.target in RESHAPES:
            self.values[node] = _viewed(arguments[0], arguments[1])
        elif graphs.is_view(node.target):
            self.values[node] = node.target(*arguments, **keywords)
        elif node.target._schema.is_mutable:
            if next(graphs.written_arguments(node), None) is not node.args[0]:
                raise Unplannable(f"{node.target} writes elsewhere than into its first argument")
            self.values[node] = arguments[0]
            self._emit(node.target, arguments, keywords, arguments[0])
        elif node in self.wholes:
            self._join(node)
        elif self._is_repeated(node, (arguments, keywords)):
            self._place_once(node, arguments, keywords)
        else:
            self.values[node] = out = self._memory(node)
            self._emit(node.target, arguments, keywords, out)

    def _emit(self, target: Any, arguments: Sequence[Any], keywords: Any, out: Any) -> None:
        self.calls += self.kernels(target, arguments, keywords, out)

    def _is_repeated(self, node: Operation, arguments: Any) -> bool:
        """Whether all rows of the result are equal, as in a batch that all lanes share."""
        if not self.thrifty or node in self.destinations or self.root[node] in self.written or not _is_rowwise(node):
            return False
        shape = graphs.value(node).shape
        tensors = [x for x in tree_leaves(arguments) if isinstance(x, Tensor)]
        return len(shape) > 1 and bool(tensors) and all(_repeats(x, shape[0]) for x in tensors)

    def _place_once(self, node: Operation, arguments: Any, keywords: Any) -> None:
        """Compute the first row, and make all others views of it."""
        first = partial(torch.narrow, dim=0, start=0, length=1)
        layout = graphs.value(node)
        self.owned[node] = []
        out = self._fresh(node, first(layout))
        self.values[node] = out.expand(layout.shape)
        arguments, keywords = tree_map_only(Tensor, first, (arguments, keywords))
        self._emit(node.target, arguments, keywords, out)

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
            raise Unplannable(f"{node.target} returns no tensor")
        if node in self.destinations:
            return self.destinations[node]
        if node in self.parts:
            join, position = self.parts[node]
            place = placement.part(node, join, position, self._whole(join))
            if place is not None:
                return place
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

    # Joins and results

    def _whole(self, join: Operation) -> Tensor:
        """Return the memory of a join, allocated when its first part is computed."""
        if join not in self.wholes:
            self.wholes[join] = self._memory(join)
        return self.wholes[join]

    def _join(self, node: Operation) -> None:
        """Copy the parts of a join that were computed elsewhere."""
        self.values[node] = whole = self.wholes.pop(node)
        for argument, place in zip(node.args[0], placement.places(node, whole), strict=True):
            held = self.values[argument]
            if held.data_ptr() != place.data_ptr() or not same_layout(held, place):
                self._emit(aten.copy_.default, (place, held), {}, place)

    def _copy_results(self) -> None:
        computed_results = [self.values[result] if isinstance(result, Node) else result for result in self.results]
        for number, (computed, output) in enumerate(zip(computed_results, self.outputs, strict=True)):
            if not isinstance(computed, Tensor) or computed.shape != output.shape:
                raise Unplannable(f"a result does not have the shape of its output, {tuple(output.shape)}")
            # An input that is returned as it is may be another output too, which is written before.
            if any(overlap(computed, earlier) for earlier in self.outputs[:number]):
                computed_results[number] = kept = torch.empty_like(computed)
                self._emit(aten.copy_.default, (kept, computed), {}, kept)
        for computed, output in zip(computed_results, self.outputs, strict=True):
            if computed.data_ptr() != output.data_ptr() or not same_layout(computed, output):
                self._emit(aten.copy_.default, (output, computed), {}, output)


def _repeats(tensor: Tensor, rows: int) -> bool:
    return tensor.dim() > 1 and tensor.shape[0] == rows > 1 and tensor.stride(0) == 0


def _is_rowwise(node: Operation) -> bool:
    """Whether each row of the result depends only on the same row of every argument."""
    if node.target in (aten.stack.default, aten.cat.default):
        return len(node.args) > 1 and bool(node.args[1] >= 1)
    if node.target is aten.constant_pad_nd.default:
        return bool(len(node.args[1]) < 2 * graphs.value(node).dim())
    if node.target not in COPIES and torch.Tag.pointwise not in node.target.tags:
        return False
    return len({graphs.value(i).dim() for i in (node, *node.all_input_nodes)}) == 1


def _viewed(held: Tensor, shape: Sequence[int]) -> Tensor:
    try:
        return held.view(shape)
    except RuntimeError as error:
        raise Unplannable(str(error)) from error


def _fills_with_tensor(node: Operation) -> bool:
    return len(node.all_input_nodes) > 1
