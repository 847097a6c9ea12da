"""bfloat16 in a graph: such values are kept as real numbers that are rounded to bfloat16.

PyTorch computes an operator of bfloat16 tensors in float32 and rounds its result. So does the rewritten graph: kernels
are those of real numbers, and a cast to bfloat16 is a kernel that rounds.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from clipbench.compiler.trace import Operation, Traced, aten, drop_unused, is_view, value, written

HALF = torch.bfloat16
# Operators whose results are numbers that they got: rounded already.
MOVING = frozenset(
    {
        *("cat", "clone", "constant_pad_nd", "copy_", "embedding", "fill_", "flip", "gather", "index", "index_select"),
        *("masked_fill", "neg", "relu", "repeat", "select_backward", "slice_backward", "stack", "threshold_backward"),
        *("where", "zero_", "zeros_like", "new_zeros", "zeros", "empty", "empty_like", "new_empty", "abs", "maximum"),
        *("minimum", "amax", "amin", "max_pool2d_with_indices", "lift_fresh_copy"),
    }
)


def is_half(node: Any) -> bool:
    layout = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(layout, Tensor) and layout.dtype == HALF


def widen(traced: Traced, dtype: torch.dtype) -> None:
    """Rewrite a graph so that its bfloat16 values are numbers of this type, rounded after each operator."""
    graph = traced.graph
    half = [node for node in graph.nodes if is_half(node) or _has_half_part(node)]
    if not half:
        return
    for node in half:
        if node.op == "get_attr":
            traced.constants[node.target] = traced.constants[node.target].to(dtype)
        elif node.op == "call_function" and node.target is operator.getitem:
            _round(graph, node)
        elif node.op == "call_function" and is_half(node):
            _widen(graph, node, dtype)
    for node in graph.nodes:
        node.meta["val"] = _wide(node.meta.get("val"), dtype)
    _drop_casts_back(graph)
    drop_unused(graph)


def _has_half_part(node: Node) -> bool:
    layout = node.meta.get("val")
    return isinstance(layout, tuple) and any(isinstance(x, Tensor) and x.dtype == HALF for x in layout)


def _widen(graph: Graph, node: Operation, dtype: torch.dtype) -> None:
    name = node.target._schema.name.split("::")[1]
    if node.target is aten._to_copy.default:  # the rounding itself
        return
    if node.kwargs.get("dtype") == HALF:
        node.kwargs = {**node.kwargs, "dtype": dtype}
    if is_view(node.target) or name in MOVING:
        return
    if node.target._schema.is_mutable:
        with graph.inserting_after(node):
            rounded = graph.call_function(aten._to_copy.default, (node.args[0],), {"dtype": HALF})
        rounded.meta["val"] = value(node.args[0])
        with graph.inserting_after(rounded):
            written_back = graph.call_function(aten.copy_.default, (node.args[0], rounded))
        written_back.meta["val"] = value(node.args[0])
        return
    _round(graph, node)


def _round(graph: Graph, node: Operation) -> None:
    with graph.inserting_after(node):
        rounded = graph.call_function(aten._to_copy.default, (node,), {"dtype": HALF})
    rounded.meta["val"] = value(node)
    node.replace_all_uses_with(rounded, delete_user_cb=lambda user: user is not rounded)


def _wide(layout: Any, dtype: torch.dtype) -> Any:
    if isinstance(layout, tuple):
        return tuple(_wide(part, dtype) for part in layout)
    return layout.to(dtype) if isinstance(layout, Tensor) and layout.dtype == HALF else layout


def _drop_casts_back(graph: Graph) -> None:
    """Drop casts of what is kept as real numbers anyway."""
    kept = written(graph)
    for node in graph.nodes:
        if node.op == "call_function" and node.target is aten._to_copy.default and node.kwargs.get("dtype") != HALF:
            source = node.args[0]
            same = value(source).dtype == value(node).dtype and value(source).stride() == value(node).stride()
            if same and not kept & {node, source}:
                node.replace_all_uses_with(source)
