"""Placement: which kernels can write directly into a result, or into a part of a tensor that is joined later."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from clipbench.engine.compiler import trace as graphs
from clipbench.engine.compiler.memory import contiguous_run, overlap, same_layout
from clipbench.engine.compiler.trace import RESHAPES, Operation, aten

JOINS = (aten.stack.default, aten.cat.default)
SCATTERED = (*JOINS, aten.constant_pad_nd.default)
# Kernels that read each element of their arguments before they write it.
IN_PLACE = (
    *(aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor),
    *(aten.addcmul.default, aten.addcdiv.default, aten.where.self, aten.maximum.default, aten.minimum.default),
)
# Contiguous elements: with fewer, writing directly is slower than a copy.
SHORTEST_RUN = 32


def of_results(
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
        source, target = unviewed(result, output)
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


def of_parts(graph: Graph, root: Mapping[Node, Node], written: Collection[Node]) -> dict[Node, tuple[Node, int]]:
    """Return, for elementwise kernels whose value is joined with others, the join and the position in it.

    Not for other kernels: a matrix product into rows that are not contiguous becomes a loop of products.
    """
    parts: dict[Node, tuple[Node, int]] = {}
    for join in graphs.operations(graph):
        if join.target not in JOINS or root[join] in written:
            continue
        for position, part in enumerate(join.args[0]):
            source, target = unviewed(part, graphs.value(part))
            if target is not None and source not in parts and _computes(source, root) and _may_scatter(source, written):
                parts[source] = join, position
    return parts


def wholes(root: Mapping[Node, Node], parts: Mapping[Node, tuple[Node, int]]) -> dict[Node, Node]:
    """Return, for each node, the node that owns its memory, where the memory of parts is that of their join."""

    def outermost(node: Node) -> Node:
        while node in parts:
            node, _ = parts[node]
        return node

    return {node: outermost(owner) for node, owner in root.items()}


def places(join: Operation, whole: Tensor) -> Sequence[Tensor]:
    """Return the parts of a join's memory, one for each argument."""
    axis = join.args[1] if len(join.args) > 1 else 0
    if join.target is aten.stack.default:
        return torch.unbind(whole, axis)
    return torch.split(whole, [graphs.value(part).shape[axis] for part in join.args[0]], axis)


def part(source: Operation, join: Operation, position: int, whole: Tensor) -> Tensor | None:
    """Return the memory in the join that a kernel writes to; None where it would be in small pieces."""
    _, target = unviewed(join.args[0][position], places(join, whole)[position])
    layout = graphs.value(source)
    if target is None or target.shape != layout.shape or target.dtype != layout.dtype:
        return None
    return target if contiguous_run(target) >= SHORTEST_RUN else None


def unviewed(node: Node, target: Tensor) -> tuple[Node, Tensor | None]:
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


def _viewed(memory: Tensor, shape: Sequence[int]) -> Tensor | None:
    try:
        return memory.view(shape)
    except RuntimeError:  # its rows are not contiguous
        return None


def _computes(source: Node, root: Mapping[Node, Node]) -> bool:
    """Whether it is a kernel that owns one result."""
    return source.op == "call_function" and root[source] is source and isinstance(graphs.value(source), Tensor)


def _may_scatter(source: Operation, written: Collection[Node]) -> bool:
    return source not in written and (torch.Tag.pointwise in source.target.tags or source.target in SCATTERED)
