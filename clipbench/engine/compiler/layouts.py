"""Rewrites of memory layouts: views without effect, and matrices that are read in transposed order.

A loop over time reads the same weights at every step, and adds up a gradient for them at every step.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch.fx import Graph, Node

from clipbench.engine.compiler.trace import RESHAPES, Operation, aten, value

PRODUCTS = (aten.bmm.default, aten.baddbmm.default, aten.mm.default, aten.addmm.default)
SAME = (*RESHAPES, aten.expand.default)
# A product takes 5/4 to 3/2 of the time on a transposed matrix; a contiguous copy pays from so many products on.
ENOUGH = 8
# A product with fewer columns is narrow; with a longer inner dimension, the transposed product takes longer.
NARROW, LONG = 16, 256


def drop_idle_view(node: Operation) -> None:
    """Drop a view that has the shape and layout of its source."""
    if node.target in SAME and same_layout(node.args[0], node):
        node.replace_all_uses_with(node.args[0])


def drop_double_transpose(node: Operation) -> None:
    if is_transpose(node) and is_transpose(node.args[0]) and _axes(node.args[0]) == _axes(node):
        node.replace_all_uses_with(node.args[0].args[0])


def add_before_transpose(node: Operation) -> None:
    """Replace the sum of transposes by the transpose of the sum, which a product can accumulate into."""
    if node.target is not aten.add.Tensor or node.kwargs or not all(map(is_transpose, node.args)):
        return
    one, other = node.args
    if _axes(one) != _axes(other) or one is other or not same_layout(one.args[0], other.args[0]):
        return
    graph = node.graph
    with graph.inserting_before(node):
        total = graph.call_function(aten.add.Tensor, (one.args[0], other.args[0]))
        turned = graph.call_function(one.target, (total, *one.args[1:]))
    total.meta["val"], turned.meta["val"] = value(one.args[0]), value(one)
    node.replace_all_uses_with(turned)


def turn_narrow_product(node: Operation) -> None:
    """Transpose a product with few columns whose transpose is added up, which takes a quarter of the time."""
    if node.target is not aten.bmm.default or not all(map(_is_summand_across, node.users)):
        return
    (rows, columns), inner = value(node).shape[1:], value(node.args[0]).shape[2]
    if columns >= NARROW or rows < NARROW or inner > LONG:
        return
    graph, (left, right) = node.graph, node.args
    with graph.inserting_before(node):
        turned = graph.call_function(aten.bmm.default, (_across(right), _across(left)))
    turned.meta["val"] = value(node).mT.contiguous()
    for user in list(node.users):
        user.replace_all_uses_with(turned)


def settle_sum(node: Operation) -> None:
    """Give a sum the layout of its terms, which other rewrites may have changed since it was traced."""
    if node.target is not aten.add.Tensor or node.kwargs or not all(isinstance(a, Node) for a in node.args):
        return
    one, other = node.args
    if same_layout(one, other) and value(one).shape == value(node).shape and value(one).is_contiguous():
        node.meta["val"] = value(one)


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


def is_transpose(node: Any) -> bool:
    return isinstance(node, Node) and node.op == "call_function" and node.target is aten.transpose.int


def _is_summand_across(node: Operation) -> bool:
    if not is_transpose(node) or _axes(node) != {1, 2}:
        return False
    return all(user.op == "output" or user.target is aten.add.Tensor for user in node.users)


def _across(node: Operation) -> Operation:
    if is_transpose(node) and _axes(node) == {1, 2}:
        return node.args[0]
    turned = node.graph.call_function(aten.transpose.int, (node, 1, 2))
    turned.meta["val"] = value(node).mT
    return turned


def same_layout(one: Node, other: Node) -> bool:
    a, b = value(one), value(other)
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride())


def _axes(node: Operation) -> set[int]:
    rank = value(node).dim()
    return {axis % rank for axis in node.args[1:]}


def _lies_across(node: Node) -> bool:
    rows, columns = value(node).stride()[-2:]
    return bool(columns != 1 and rows == 1 and min(value(node).shape[-2:]) > 1)
