"""Owns the graph of a step: how it is traced, which values share memory, what makes it cheaper to run."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten

# A node that calls an operator; torch.fx types its arguments too loosely to be of use.
Operation = Any

# `_unsafe_view` says that it copies, but it only ever views a value that nobody else writes to.
RESHAPES = (aten.view.default, aten._unsafe_view.default)
# Backward operators that place a gradient in zeros, and the view that they write through.
PARTS = {aten.select_backward.default: aten.select.int, aten.slice_backward.default: aten.slice.Tensor}
LAYOUT_FREE = {aten.max_pool2d_with_indices_backward.default}
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


class Unplannable(Exception):
    """A graph that may only run as PyTorch runs it; the text says why."""


class Untraceable(Unplannable):
    """A function whose graph would not do what the function does."""


def trace(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> GraphModule:
    """The aten graph of `function`, refused where a replay could differ from the function."""
    with torch.no_grad():
        module = make_fx(function)(*inputs)
    nodes = operations(module.graph)
    for node in nodes:
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            raise Untraceable(f"{node.target} draws random numbers")
    for root in written(module.graph):
        if root.op != "call_function":
            raise Untraceable(f"the function writes into its argument {root.name}")
    return module


def operations(graph: Graph) -> list[Operation]:
    """The nodes that call an aten operator."""
    found = [n for n in graph.nodes if n.op == "call_function" and n.target is not operator.getitem]
    for node in found:
        if not isinstance(node.target, torch._ops.OpOverload):
            raise Unplannable(f"{node.target} is no tensor operator")
    return found


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
    """The nodes whose memory this in-place operator changes."""
    schema = node.target._schema
    for position, argument in enumerate(schema.arguments):
        if not (argument.alias_info and argument.alias_info.is_write):
            continue
        given = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
        yield from [given] if isinstance(given, Node) else given or ()


def roots(graph: Graph) -> dict[Node, Node]:
    """For each node the one whose memory its value lives in."""
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
    """The roots that an in-place operator changes."""
    root = roots(graph)
    return {
        root[argument]
        for node in operations(graph)
        if node.target._schema.is_mutable
        for argument in written_arguments(node)
    }


def simplify(graph: Graph) -> None:
    """Rewrite the graph into one that computes the same values in fewer or faster kernels."""
    graph.eliminate_dead_code()
    kept = written(graph)
    root = roots(graph)
    pure = [n for n in operations(graph) if not kept & {root[n], *(root[i] for i in n.all_input_nodes)}]
    for rewrite in (drop_unit_factor, split_clamp, drop_relayout):
        for node in pure:
            rewrite(node)
    for node in pure:
        fuse_product_and_sum(node, kept, root)
    graph.eliminate_dead_code()
    for node in operations(graph):
        add_into_part(node)
    graph.eliminate_dead_code()


def value(node: Any) -> Any:
    """What the node returned while it was traced, without its numbers."""
    return node.meta["val"]


def replace(node: Operation, target: Any, *args: Any) -> None:
    with node.graph.inserting_before(node):
        new = node.graph.call_function(target, args)
    new.meta["val"] = value(node)
    node.replace_all_uses_with(new)


def drop_unit_factor(node: Operation) -> None:
    """x * 1 is x: `vmap` scales every bias of a linear layer by one."""
    if node.target not in (aten.mul.Scalar, aten.mul.Tensor, aten.div.Scalar, aten.div.Tensor):
        return
    source, factor = node.args
    if not isinstance(factor, Node) and factor == 1 and isinstance(source, Node) and _same_kind(source, node):
        node.replace_all_uses_with(source)


def split_clamp(node: Operation) -> None:
    """`clamp` with tensor bounds costs five times `maximum` and `minimum`."""
    if node.target is not aten.clamp.Tensor:
        return
    source, low, high = (*node.args, None, None)[:3]
    low, high = node.kwargs.get("min", low), node.kwargs.get("max", high)
    graph = node.graph
    with graph.inserting_before(node):
        new = source
        for bound, target in ((low, aten.maximum.default), (high, aten.minimum.default)):
            if bound is not None:
                new = graph.call_function(target, (new, bound))
                new.meta["val"] = value(node)
    node.replace_all_uses_with(new)


def drop_relayout(node: Operation) -> None:
    """A copy that only changes the layout is wasted on an operator that wants the old one."""
    if node.target is aten.clone.default and all(u.target in LAYOUT_FREE for u in node.users):
        node.replace_all_uses_with(node.args[0])


def fuse_product_and_sum(node: Operation, kept: set[Node], root: dict[Node, Node]) -> None:
    """a @ b + c is one kernel, `baddbmm`, where c is as large as the product: it accumulates in place."""
    if node.target is not aten.add.Tensor or node.kwargs or not _is_batch_of_matrices(node):
        return
    for product, addend in (node.args, node.args[::-1]):
        if not isinstance(product, Node) or not isinstance(addend, Node) or not _same_kind(product, node):
            continue
        source = _unreshaped(product)
        if source.target is aten.bmm.default and _same_kind(source, node) and _same_kind(addend, node):
            # The factors are now read later than they were: nothing may have changed them meanwhile.
            if not kept & {root.get(factor, factor) for factor in source.all_input_nodes}:
                replace(node, aten.baddbmm.default, addend, *source.args)
            return


def add_into_part(node: Operation) -> None:
    """What is zero but for one part is added there: a loop over time would else add whole sequences."""
    if node.target is not aten.add.Tensor or node.kwargs:
        return
    for whole, padded in (node.args, node.args[::-1]):
        if _can_take_part(whole, padded):
            _write_part(node, whole, padded)
            return


def _can_take_part(whole: Any, padded: Any) -> bool:
    if not (isinstance(whole, Node) and isinstance(padded, Node) and padded.target in PARTS):
        return False
    return _is_own_memory(whole) and len(padded.users) == 1 and _same_kind(whole, padded)


def _write_part(node: Operation, whole: Operation, padded: Operation) -> None:
    gradient, _, *place = padded.args
    with node.graph.inserting_before(node):
        part = node.graph.call_function(PARTS[padded.target], (whole, *place))
        added = node.graph.call_function(aten.add_.Tensor, (part, gradient))
    part.meta.update(val=value(gradient), part=True)
    added.meta.update(val=value(gradient))
    node.replace_all_uses_with(whole)
    node.graph.erase_node(node)


def _is_own_memory(node: Operation) -> bool:
    """Whether nobody but its only user would notice that this value changes."""
    users = [user for user in node.users if "part" not in user.meta]
    if node.op != "call_function" or len(users) != 1 or node.target is operator.getitem:
        return False
    return not node.target._schema.is_mutable and not is_view(node.target)


def _unreshaped(node: Operation) -> Operation:
    while node.target in RESHAPES and len(node.users) == 1:
        node = node.args[0]
    return node if len(node.users) == 1 else node.graph._root


def _is_batch_of_matrices(node: Node) -> bool:
    return isinstance(value(node), Tensor) and value(node).dim() == 3


def _same_kind(one: Node, other: Node) -> bool:
    a, b = value(one), value(other)
    return isinstance(a, Tensor) and a.shape == b.shape and a.dtype == b.dtype


def last_uses(graph: Graph, root: dict[Node, Node]) -> dict[Node, Node]:
    """For each root the last node that reads or writes its memory."""
    last: dict[Node, Node] = {}
    for node in graph.nodes:
        last[root[node]] = node
        for argument in node.all_input_nodes:
            last[root[argument]] = node
    return last


def results(graph: Graph) -> Iterable[Any]:
    """What the function returned."""
    (returned,) = next(n for n in reversed(list(graph.nodes)) if n.op == "output").args
    return returned if isinstance(returned, (list, tuple)) else (returned,)
