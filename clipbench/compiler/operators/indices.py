"""Look-ups by index, and numbers that are written or added at an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipbench.compiler.call_records import OPERANDS
from clipbench.compiler.encode import Encoder, Encoding, Scalar
from clipbench.compiler.trace import CannotCompile, aten

Places = Sequence[tuple[int, Tensor]]  # dimensions of a table, and the indices along them


def _look_up(encoder: Encoder, name: str, entry: Tensor, other: Tensor, table: Tensor, places: Places) -> None:
    """Copy numbers of the table to `other`, or add or write those of `other` into the table."""
    indices = [index.expand_as(other) for _, index in places]
    if len(indices) > OPERANDS - 2 or any(index.dtype != torch.int64 for index in indices):
        raise CannotCompile("indices of another type or number than usual")
    if other.dtype != table.dtype:
        raise CannotCompile(f"{other.dtype} at places of {table.dtype}")
    kind = encoder.kind(table)
    wholes = [size for dim, _ in places for size in (table.stride(dim) * table.element_size(), table.shape[dim])]
    operands = [other, entry.expand_as(other)] if name == "look_up" else [entry.expand_as(other), other]
    encoder.add(name if kind == "real" else f"{name}_{kind}", [*operands, *indices], wholes=wholes)


def _entry(table: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """Return the first entry along a dimension, and of the others as many as an index has."""
    if not table.dim():
        return table
    for axis, size in enumerate(shape):
        table = table.narrow(axis, 0, 1 if axis == dim % len(shape) else size)
    return table


def _gather(encoder: Encoder, out: Tensor, table: Tensor, dim: int, index: Tensor, **_: Any) -> None:
    places = [(dim, index)] if table.dim() else []
    _look_up(encoder, "look_up", _entry(table, dim, index.shape), out, table, places)


def _scatter(name: str) -> Encoding:
    def encode(encoder: Encoder, out: Tensor, x: Tensor, dim: int, index: Tensor, source: Tensor | Scalar) -> None:
        _begin_with(encoder, out, x)
        source = encoder.of_kind(encoder.kind(out), source)
        part = source.expand(index.shape) if not source.dim() else _entry_of(source, index.shape)
        _look_up(encoder, name, _entry(out, dim, index.shape), part, out, [(dim, index)] if out.dim() else [])

    return encode


def _entry_of(source: Tensor, shape: Sequence[int]) -> Tensor:
    for axis, size in enumerate(shape):
        source = source.narrow(axis, 0, size)
    return source


def _begin_with(encoder: Encoder, out: Tensor, x: Tensor) -> None:
    if out.data_ptr() != x.data_ptr():
        encoder.copy(out, x)


def _index_select(encoder: Encoder, out: Tensor, table: Tensor, dim: int, index: Tensor) -> None:
    if not table.dim():
        return encoder.copy(out, table)
    shape = [-1 if axis == dim % table.dim() else 1 for axis in range(table.dim())]
    _look_up(encoder, "look_up", table.narrow(dim, 0, 1), out, table, [(dim, index.reshape(shape))])


def _common(*tensors: Tensor) -> torch.Size:
    shared: Tensor = torch.broadcast_tensors(*tensors)[0]  # type: ignore[no-untyped-call]
    return shared.shape


def _placed(table: Tensor, indices: Sequence[Tensor | None]) -> tuple[Tensor, Places]:
    """Return the first entry and the indices in the shape that `table[indices]` has."""
    given = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if any(index.dtype != torch.int64 for _, index in given):
        raise CannotCompile("an index of flags")
    dims = [dim for dim, _ in given]
    shape = _common(*(index for _, index in given))
    first = dims[0] if dims == list(range(dims[0], dims[-1] + 1)) else 0
    entry = table
    for dim in reversed(dims):
        entry = entry.select(dim, 0)
    behind = entry.dim() - first
    entry = entry[(slice(None),) * first + (None,) * len(shape)]
    return entry, [(dim, index.expand(shape)[(..., *(None,) * behind)]) for dim, index in given]


def _index(encoder: Encoder, out: Tensor, table: Tensor, indices: Sequence[Tensor | None]) -> None:
    entry, places = _placed(table, indices)
    _look_up(encoder, "look_up", entry, out, table, places)


def _index_put(
    encoder: Encoder,
    out: Tensor,
    x: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor,
    accumulate: bool = False,
    unsafe: bool = False,
) -> None:
    _begin_with(encoder, out, x)
    values = encoder.of_kind(encoder.kind(out), values)
    if len(indices) == 1 and indices[0] is not None and indices[0].dtype == torch.bool and values.numel() == 1:
        mask = indices[0].reshape(indices[0].shape + (1,) * (out.dim() - indices[0].dim())).expand(out.shape)
        suffix = {"real": "", "integer": "_integer", "flag": "_flag"}[encoder.kind(out)]
        if accumulate:
            raise CannotCompile("numbers are added where flags are set")
        return encoder.mixed("choose" + suffix, out, mask, values.reshape(()), out)
    entry, places = _placed(out, indices)
    shape = _common(entry, *(index for _, index in places))
    _look_up(encoder, "add_at" if accumulate else "put_at", entry, values.expand(shape), out, places)


def _embedding(encoder: Encoder, out: Tensor, table: Tensor, index: Tensor, *_: Any) -> None:
    _look_up(encoder, "look_up", table[0], out, table, [(0, index.unsqueeze(-1))])


def _embedding_backward(
    encoder: Encoder, out: Tensor, gradient: Tensor, index: Tensor, count: int, padding: int, scaled: bool
) -> None:
    if padding >= 0 or scaled:
        raise CannotCompile("an embedding with padding or scaled gradients")
    encoder.fill(out, 0)
    _look_up(encoder, "add_at", out[0], gradient, out, [(0, index.unsqueeze(-1))])


ENCODINGS: dict[Any, Encoding] = {
    aten.gather.default: _gather,
    aten.scatter_add.default: _scatter("add_at"),
    **dict.fromkeys((aten.scatter.src, aten.scatter.value), _scatter("put_at")),
    aten.index_select.default: _index_select,
    **dict.fromkeys((aten.index.Tensor, aten._unsafe_index.Tensor), _index),
    **dict.fromkeys((aten.index_put.default, aten._unsafe_index_put.default), _index_put),
    aten._index_put_impl.default: _index_put,
    aten.embedding.default: _embedding,
    aten.embedding_dense_backward.default: _embedding_backward,
}
