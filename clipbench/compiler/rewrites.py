"""Rewrites of a graph that compute the same values in fewer or faster kernels.

A loop over time reads the same weights at every step, and adds up a gradient for them at every step.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from clipbench.compiler.trace import (
    RESHAPES,
    Operation,
    aten,
    drop_unused,
    is_view,
    operations,
    roots,
    value,
    written,
)

# Backward operators that write a gradient into zeros, and the view that selects the part.
PARTS = {aten.select_backward.default: aten.select.int, aten.slice_backward.default: aten.slice.Tensor}
# Products, and the kernels that add a product to what is there.
ACCUMULATING = {aten.bmm.default: aten.baddbmm.default, aten.mm.default: aten.addmm.default}
PRODUCTS = (*ACCUMULATING, *ACCUMULATING.values())
# A product takes longer on a transposed matrix; a contiguous copy pays from so many products on.
ENOUGH = 8


def simplify(graph: Graph) -> None:
    """Rewrite the graph into one that computes the same values in fewer or faster kernels."""
    for node in operations(graph):
        if torch.Tag.inplace_view in node.target.tags:  # later nodes use the result, as that of the view
            node.target = without_writing(node.target)
    drop_unused(graph)  # unused nodes must not count as readers
    kept, root = written(graph), roots(graph)
    for node in pure(graph):
        fuse_product_and_sum(node, kept, root)
    straighten_factors(graph, pure(graph))
    drop_unused(graph)
    for node in operations(graph):
        add_into_part(node)
    drop_unused(graph)


def without_writing(target: Any) -> Any:
    """Return the operator that computes what this one writes into its first argument: `add` for `add_`."""
    name = target._schema.name.split("::")[1]
    same = getattr(getattr(aten, name[:-1], None), target._overloadname, None)
    return same if target._schema.is_mutable and name.endswith("_") and same is not None else target


def pure(graph: Graph) -> list[Operation]:
    """Return the operators that neither read nor return memory that another one changes: they may move."""
    kept, root = written(graph), roots(graph)
    return [n for n in operations(graph) if not kept & {root[n], *(root[i] for i in n.all_input_nodes)}]


def fuse_product_and_sum(node: Operation, kept: set[Node], root: dict[Node, Node]) -> None:
    """Replace a @ b + c by one kernel where c has the shape of the product: it accumulates in place."""
    if node.target is not aten.add.Tensor or node.kwargs:
        return
    for product, addend in (node.args, node.args[::-1]):
        if not isinstance(product, Node) or not isinstance(addend, Node) or not _same_kind(product, node):
            continue
        source = _unreshaped(product)
        if source.target in ACCUMULATING and _same_kind(source, node) and _same_kind(addend, node):
            # The factors are read later than before: nothing may change them in between.
            if not kept & {root.get(factor, factor) for factor in source.all_input_nodes}:
                with node.graph.inserting_before(node):
                    new = node.graph.call_function(ACCUMULATING[source.target], (addend, *source.args))
                new.meta["val"] = value(node)
                node.replace_all_uses_with(new)
            return


def straighten_factors(graph: Graph, pure: list[Operation]) -> None:
    """Copy a transposed matrix that many products read into a contiguous one."""
    readers = defaultdict(list)
    for node in pure:
        if node.target in PRODUCTS and node.args[-1] in pure and _lies_across(node.args[-1]):
            readers[node.args[-1]].append(node)
    for factor, products in readers.items():
        if len(products) >= ENOUGH:
            with graph.inserting_after(factor):
                straight = graph.call_function(
                    aten.clone.default, (factor,), {"memory_format": torch.contiguous_format}
                )
            straight.meta["val"] = value(factor).contiguous()
            for product in products:
                product.update_arg(len(product.args) - 1, straight)


def _lies_across(node: Node) -> bool:
    rows, columns = value(node).stride()[-2:]
    return bool(columns != 1 and rows == 1 and min(value(node).shape[-2:]) > 1)


def add_into_part(node: Operation) -> None:
    """Add a tensor that is zero except for one part to that part only: a loop over time would add whole sequences."""
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
    """Whether this value may be changed in place: it has one user and owns its memory."""
    users = [user for user in node.users if "part" not in user.meta]
    if node.op != "call_function" or len(users) != 1 or node.target is operator.getitem:
        return False
    return not node.target._schema.is_mutable and not is_view(node.target)


def _unreshaped(node: Operation) -> Operation:
    while node.target in RESHAPES and len(node.users) == 1:
        node = node.args[0]
    return node if len(node.users) == 1 else node.graph._root


def _same_kind(one: Node, other: Node) -> bool:
    a, b = value(one), value(other)
    return isinstance(a, Tensor) and a.shape == b.shape and a.dtype == b.dtype
