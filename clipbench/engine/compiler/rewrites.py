"""Rewrites of a graph that compute the same values in fewer or faster kernels."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from clipbench.engine.compiler.layouts import (
    add_before_transpose,
    drop_double_transpose,
    drop_idle_view,
    same_layout,
    settle_sum,
    straighten_factors,
    turn_narrow_product,
)
from clipbench.engine.compiler.trace import RESHAPES, Operation, aten, is_view, operations, roots, value, written

RELU_BACKWARD = aten.threshold_backward.default
POOL = aten.max_pool2d_with_indices.default
POOL_BACKWARD = aten.max_pool2d_with_indices_backward.default
# Backward operators that write a gradient into zeros, and the view that selects the part.
PARTS = {aten.select_backward.default: aten.select.int, aten.slice_backward.default: aten.slice.Tensor}
LAYOUT_FREE = {POOL_BACKWARD}
# Products, and the kernels that add a product to what is there.
ACCUMULATING = {aten.bmm.default: aten.baddbmm.default, aten.mm.default: aten.addmm.default}


def simplify(graph: Graph) -> None:
    """Rewrite the graph into one that computes the same values in fewer or faster kernels."""
    for node in operations(graph):
        if torch.Tag.inplace_view in node.target.tags:  # later nodes use the result, as that of the view
            node.target = without_writing(node.target)
    for rewrites in (
        (drop_alias, drop_idle_view, drop_double_transpose, drop_unit_factor, split_clamp, drop_relayout),
        (pool_before_relu, turn_narrow_product, settle_sum, add_before_transpose),
    ):
        graph.eliminate_dead_code()  # unused nodes must not count as readers
        nodes = pure(graph)
        for rewrite in rewrites:
            for node in nodes:
                rewrite(node)
    graph.eliminate_dead_code()
    kept, root = written(graph), roots(graph)
    for node in pure(graph):
        fuse_product_and_sum(node, kept, root)
    straighten_factors(graph, pure(graph))
    graph.eliminate_dead_code()
    for node in operations(graph):
        add_into_part(node)
    graph.eliminate_dead_code()


def without_writing(target: Any) -> Any:
    """Return the operator that computes what this one writes into its first argument: `add` for `add_`."""
    name = target._schema.name.split("::")[1]
    same = getattr(getattr(aten, name[:-1], None), target._overloadname, None)
    return same if target._schema.is_mutable and name.endswith("_") and same is not None else target


def pure(graph: Graph) -> list[Operation]:
    """Return the operators that neither read nor return memory that another one changes: they may move."""
    kept, root = written(graph), roots(graph)
    return [n for n in operations(graph) if not kept & {root[n], *(root[i] for i in n.all_input_nodes)}]


def replace(node: Operation, target: Any, *args: Any) -> None:
    with node.graph.inserting_before(node):
        new = node.graph.call_function(target, args)
    new.meta["val"] = value(node)
    node.replace_all_uses_with(new)


def drop_alias(node: Operation) -> None:
    """Drop `detach` and `alias`: nothing is differentiated here."""
    if node.target in (aten.detach.default, aten.alias.default):
        node.replace_all_uses_with(node.args[0])


def drop_unit_factor(node: Operation) -> None:
    """Replace x * 1 by x: `vmap` multiplies every bias of a linear layer by one."""
    if node.target not in (aten.mul.Scalar, aten.mul.Tensor, aten.div.Scalar, aten.div.Tensor):
        return
    source, factor = node.args
    if not isinstance(factor, Node) and factor == 1 and isinstance(source, Node) and same_layout(source, node):
        node.replace_all_uses_with(source)


def split_clamp(node: Operation) -> None:
    """Replace `clamp` with tensor bounds by `maximum` and `minimum`, which take a fifth of the time."""
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
    """Drop a copy that only changes the layout, for operators that prefer the old layout."""
    if node.target is aten.clone.default and all(u.target in LAYOUT_FREE for u in node.users):
        node.replace_all_uses_with(node.args[0])


def pool_before_relu(relu: Operation) -> None:
    """Replace the maximum of relus by the relu of the maximum, which has fewer elements; likewise their gradients.

    Where a gradient is not zero, the largest element is positive, and the same one in both.
    """
    if relu.target is not aten.relu.default or not same_layout(relu.args[0], relu):
        return
    users = list(_users_through_views(relu))
    pools = [user for user in users if user.target is POOL]
    backwards = [user for user in users if user.target is POOL_BACKWARD]
    masks = [user for user in users if user.target is RELU_BACKWARD and user.args[1] is relu]
    if len(pools) != 1 or len(users) != 1 + len(backwards) + len(masks) or len(masks) != len(backwards):
        return
    if any(_source(mask.args[0]) is not back for mask, back in zip(masks, backwards, strict=True)):
        return
    _swap(relu, pools[0], list(zip(masks, backwards, strict=True)))


def _swap(relu: Operation, pool: Operation, gradients: list[tuple[Operation, Operation]]) -> None:
    graph, maximum = relu.graph, next(user for user in pool.users if user.args[1] == 0)
    with graph.inserting_after(maximum):
        rectified = graph.call_function(aten.relu.default, (maximum,))
    rectified.meta["val"] = value(maximum)
    maximum.replace_all_uses_with(rectified, delete_user_cb=lambda user: user is not rectified)
    for mask, backward in gradients:
        with graph.inserting_before(backward):
            kept = graph.call_function(mask.target, (backward.args[0], rectified, 0))
        kept.meta["val"] = value(maximum)
        backward.update_arg(0, kept)
        mask.replace_all_uses_with(mask.args[0])
        graph.erase_node(mask)
    relu.replace_all_uses_with(relu.args[0])


def _users_through_views(node: Operation) -> Iterator[Operation]:
    for user in node.users:
        if user.op == "call_function" and is_view(user.target):
            yield from _users_through_views(user)
        else:
            yield user


def _source(node: Operation) -> Operation:
    while node.op == "call_function" and is_view(node.target) and len(node.users) == 1:
        node = node.args[0]
    return node


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
                replace(node, ACCUMULATING[source.target], addend, *source.args)
            return


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
