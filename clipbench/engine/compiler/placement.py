"""Owns where a kernel may leave its value at once: in a result, or in its part of a whole that is joined later."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from clipbench.engine.compiler import trace as graphs
from clipbench.engine.compiler.buffers import same_layout
from clipbench.engine.compiler.trace import RESHAPES, Operation, aten

JOINS = (aten.stack.default, aten.cat.default)
SCATTERED = (*JOINS, aten.constant_pad_nd.default)
# Elements that lie together: with fewer, a kernel is slower than a copy.
SHORTEST_RUN = 32


def of_results(
    results: Sequence[Any], outputs: Sequence[Tensor], taken: Collection[int], root: Mapping[Node, Node]
) -> dict[Node, Tensor]:
    """For kernels that compute a result: the output that they write to directly; not those `taken` by inputs."""
    homes: dict[Node, Tensor] = {}
    for position, (result, output) in enumerate(zip(results, outputs, strict=True)):
        if isinstance(result, Node) and position not in taken:
            source, home = unviewed(result, output)
            if home is not None and source not in homes and _computes(source, root) and _fits(home, source):
                homes[source] = home
    return homes


def of_parts(graph: Graph, root: Mapping[Node, Node], written: Collection[Node]) -> dict[Node, tuple[Node, int]]:
    """For elementwise kernels whose value is joined with others: the join, and its place there.

    Other kernels stay apart: a product into rows that do not lie together becomes a loop of products.
    """
    parts: dict[Node, tuple[Node, int]] = {}
    for join in graphs.operations(graph):
        if join.target not in JOINS or root[join] in written:
            continue
        for position, part in enumerate(join.args[0]):
            source, home = unviewed(part, graphs.value(part))
            if home is not None and source not in parts and _computes(source, root) and _may_scatter(source, written):
                parts[source] = join, position
    return parts


def wholes(root: Mapping[Node, Node], parts: Mapping[Node, tuple[Node, int]]) -> dict[Node, Node]:
    """For each node the one whose memory its value lives in, where parts live in what they are joined to."""

    def outermost(node: Node) -> Node:
        while node in parts:
            node, _ = parts[node]
        return node

    return {node: outermost(owner) for node, owner in root.items()}


def places(join: Operation, whole: Tensor) -> Sequence[Tensor]:
    """The parts of a join's memory, as its arguments are laid out."""
    axis = join.args[1] if len(join.args) > 1 else 0
    if join.target is aten.stack.default:
        return torch.unbind(whole, axis)
    return torch.split(whole, [graphs.value(part).shape[axis] for part in join.args[0]], axis)


def part(source: Operation, join: Operation, position: int, whole: Tensor) -> Tensor | None:
    """Where in the whole a kernel leaves its value; None where it would have to go in small pieces."""
    _, home = unviewed(join.args[0][position], places(join, whole)[position])
    layout = graphs.value(source)
    if home is None or home.shape != layout.shape or home.dtype != layout.dtype or _run(home) < SHORTEST_RUN:
        return None
    return home


def unviewed(node: Node, home: Tensor) -> tuple[Node, Tensor | None]:
    """Undo the views between a result and the kernel that computed it, on the memory it shall land in."""
    view: Tensor | None = home
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
    except RuntimeError:  # its rows do not lie together
        return None


def _computes(source: Node, root: Mapping[Node, Node]) -> bool:
    """Whether it is a kernel with one result of its own."""
    return source.op == "call_function" and root[source] is source and isinstance(graphs.value(source), Tensor)


def _fits(home: Tensor, source: Node) -> bool:
    return same_layout(home, graphs.value(source))


def _may_scatter(source: Operation, written: Collection[Node]) -> bool:
    return source not in written and (torch.Tag.pointwise in source.target.tags or source.target in SCATTERED)


def _run(memory: Tensor) -> int:
    """How many elements lie together, in the order in which they are visited."""
    run = 1
    for size, stride in zip(reversed(memory.shape), reversed(memory.stride()), strict=True):
        if size > 1 and stride != run:
            break
        run *= size
    return run
