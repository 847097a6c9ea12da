"""The graph of a step: how it is traced, and which of its values share memory for how long."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from clipbench.plugins.without_dynamo import avoid_dynamo, call_directly

avoid_dynamo()

aten = torch.ops.aten

# A node that calls an operator; the types of torch.fx are too loose to be of use.
Operation = Any

# `_unsafe_view` is declared as a copy, but is a view of a value that nothing else writes to.
RESHAPES = (aten.view.default, aten._unsafe_view.default)
FACTORIES = {
    "ones_like",
    "zeros_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "zeros",
    "ones",
    "full",
}


class CannotCompile(Exception):
    """A function that cannot be compiled; the text says why."""


class Untraceable(CannotCompile):
    """A function whose graph would not do the same as the function."""


@dataclass(frozen=True)
class Traced:
    """The graph of a function, and the tensors in it that no operator makes, by the target of their nodes."""

    graph: Graph
    constants: dict[str, Tensor]

    def module(self) -> GraphModule:
        """Return the graph as a function."""
        root = torch.nn.Module()
        for name, constant in self.constants.items():
            root.register_buffer(name, constant)
        return GraphModule(root, self.graph)


def trace(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Traced:
    """Return the aten graph of `function`; raise where a replay could differ from the function."""
    recorder = _Recorder(inputs)
    with torch.no_grad(), recorder:
        results = function(*inputs)
    graph = recorder.graph_of(results)
    for node in operations(graph):
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise Untraceable(f"{node.target} draws random numbers")
    for root in written(graph):
        if root.op != "call_function":
            raise Untraceable(f"the function writes into its argument {root.name}")
    return Traced(graph, recorder.constants)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Write each operator that runs into a graph.

    `make_fx` does that too, but takes twice the time, and imports torch._dynamo, which takes as long as torch itself.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = Graph()
        self.constants: dict[str, Tensor] = {}
        self._nodes: MutableMapping[Tensor, Node] = WeakTensorKeyDictionary()
        self._varying: set[int] = set()  # memory whose content depends on the inputs
        for number, tensor in enumerate(inputs):
            self._add(tensor, self.graph.placeholder(f"input_{number}"))
            self._varying.add(_memory(tensor))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # an operator that consists of others: they are recorded
            result = function.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        if function is aten.lift_fresh.default:  # a constant: what is written into it must not stay for the next run
            function = aten.lift_fresh_copy.default
        result = function(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        varies = any(_memory(tensor) in self._varying for tensor in given)
        if isinstance(result, bool | int | float):
            if varies:
                raise Untraceable("it turns a tensor into a number of Python, with `.item()` or `if`")
            return result  # the same in every step
        if varies:
            changed = given if function._schema.is_mutable else []
            made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self._varying.update(map(_memory, (*changed, *made)))
        if function is aten.detach.default:  # the same values in the same memory
            self._nodes[result] = self._node(args[0])
            return result
        keywords = {name: self._node(value) for name, value in (kwargs or {}).items()}
        node = self.graph.call_function(function, self._node(tuple(args)), keywords)
        self._add(result, node)
        for number, part in enumerate(result if isinstance(result, list | tuple) else ()):
            self._add(part, self.graph.call_function(operator.getitem, (node, number)))
        return result

    def graph_of(self, results: Sequence[Tensor]) -> Graph:
        self.graph.output(tuple(map(self._node, results)))
        drop_unused(self.graph)
        return self.graph

    def _add(self, result: Any, node: Node) -> None:
        node.meta["val"] = _layout(result)
        if isinstance(result, Tensor):
            self._nodes[result] = node

    def _node(self, value: Any) -> Any:
        """Return the node of a tensor, also in lists; one that no operator has made is a constant."""
        if isinstance(value, list | tuple):
            return type(value)(map(self._node, value))
        if not isinstance(value, Tensor):
            return value
        if value not in self._nodes:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = value
            self._add(value, self.graph.get_attr(name))
        return self._nodes[value]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _layout(result: Any) -> Any:
    if isinstance(result, list | tuple):
        return tuple(map(_layout, result))
    if not isinstance(result, Tensor):
        return result
    return torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device="meta")


call_directly(_Recorder.__torch_dispatch__)


def operations(graph: Graph) -> list[Operation]:
    """Return the nodes that call an aten operator."""
    found = [n for n in graph.nodes if n.op == "call_function" and n.target is not operator.getitem]
    for node in found:
        if not isinstance(node.target, torch._ops.OpOverload):
            raise CannotCompile(f"{node.target} is not a tensor operator")
    return found


def drop_unused(graph: Graph) -> None:
    """Drop what no result needs; torch.fx has that too, but takes five times as long."""
    for node in reversed(graph.nodes):
        if node.users or node.op not in ("call_function", "get_attr"):
            continue
        target: Any = node.target
        keeps = isinstance(target, torch._ops.OpOverload) and (
            target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags
        )
        if not keeps:
            graph.erase_node(node)


@cache
def is_view(target: Any) -> bool:
    if target in RESHAPES:
        return True
    schema = getattr(target, "_schema", None)  # `operator.getitem` has none
    return (
        schema is not None
        and not schema.is_mutable
        and any(r.alias_info and not r.alias_info.is_write for r in schema.returns)
    )


def written_arguments(node: Operation) -> Iterator[Node]:
    """Yield the nodes whose memory this in-place operator changes."""
    schema = node.target._schema
    for position, argument in enumerate(schema.arguments):
        if not (argument.alias_info and argument.alias_info.is_write):
            continue
        given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
        yield from [given] if isinstance(given, Node) else given or ()


def roots(graph: Graph) -> dict[Node, Node]:
    """Return, for each node, the node that owns the memory of its value."""
    root: dict[Node, Node] = {}
    for node in graph.nodes:
        aliased: Node | None = None
        if node.op == "call_function" and node.target is operator.getitem:
            aliased = node.args[0]
        elif node.op == "call_function" and node.target._schema.is_mutable:
            aliased = next(written_arguments(node), None)
        elif node.op == "call_function" and is_view(node.target):
            aliased = node.args[0]
        root[node] = root[aliased] if aliased is not None else node
    return root


def written(graph: Graph) -> set[Node]:
    """Return the owners of memory that an in-place operator changes."""
    root = roots(graph)
    return {
        root[argument]
        for node in operations(graph)
        if node.target._schema.is_mutable
        for argument in written_arguments(node)
    }


def value(node: Any) -> Any:
    """Return an empty tensor with the shape, type and strides of a node's result."""
    return node.meta["val"]


def last_uses(graph: Graph, root: dict[Node, Node]) -> dict[Node, Node]:
    """Return, for each root, the last node that reads or writes its memory."""
    last: dict[Node, Node] = {}
    for node in graph.nodes:
        last[root[node]] = node
        for argument in node.all_input_nodes:
            last[root[argument]] = node
    return last


def results(graph: Graph) -> Iterable[Any]:
    """Return the results of the function."""
    (returned,) = next(n for n in reversed(list(graph.nodes)) if n.op == "output").args
    return returned if isinstance(returned, (list, tuple)) else (returned,)
