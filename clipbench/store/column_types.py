"""The column types of the store: a name has the same type in every file, whatever its values are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipbench.core import measures
from clipbench.core.records import Columns

COUNTERS = ("epoch", "step")
TEXT = frozenset(name for name, kind in measures.TYPES.items() if kind is str)
INTEGERS = {
    name: pa.int32() if name in COUNTERS else pa.int64() for name, kind in measures.TYPES.items() if kind is int
}
ARM = ("arm", "seed")  # columns of the records that epochs and steps repeat
# The first columns of each table, even if there are no files.
KEYS = {
    "records": pa.schema([("id", pa.string()), ("status", pa.string())]),
    "epochs": pa.schema([("id", pa.string()), ("arm", pa.string()), ("seed", pa.int64()), ("epoch", pa.int32())]),
    "steps": pa.schema([("id", pa.string()), ("arm", pa.string()), ("seed", pa.int64()), ("step", pa.int32())]),
}


def to_table(values: Columns) -> pa.Table:
    return pa.table({name: _array(name, np.asarray(column)) for name, column in values.items()})


def unify(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Return the columns of all schemas, each with a type that holds the values of all."""
    types: dict[str, pa.DataType] = {}
    for schema in schemas:
        for field in schema:
            types[field.name] = _wider(types.get(field.name, field.type), field.type)
    return pa.schema(types.items())


def is_option(name: str) -> bool:
    """Whether a column is an option of the trial (`lr`, `clip.per`) and not a measure (`test/loss`)."""
    return name in measures.OPTIONS or ("." in name and "/" not in name)


def concat(tables: Sequence[pa.Table], keys: pa.Schema, wanted: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of all tables, with empty values where a table lacks a column.

    `wanted` columns are always present, and no others of the keys.
    """
    if wanted is not None:
        keys = pa.schema([field for field in keys if field.name in wanted])
    schema = unify([keys, *(table.schema for table in tables)])
    for name in wanted or ():
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.float64()))
    return pa.concat_tables([_conform(table, schema) for table in tables] or [schema.empty_table()])


def with_arm_and_seed(series: pa.Table, records: pa.Table) -> pa.Table:
    """Add the arm and the seed of each row's trial after its id."""
    for position, name in enumerate(ARM, start=1):
        if name in records.column_names and name not in series.column_names and len(series):
            rows = pc.index_in(series["id"], records["id"])
            series = series.add_column(position, name, records[name].take(rows))
    return series


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    arrays = [
        table[field.name].cast(field.type) if field.name in table.schema.names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if _is_number(one) and _is_number(other):
        return pa.float64()
    return pa.string()  # an option that is `off` in one trial and 0.1 in another


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _array(name: str, column: np.ndarray) -> pa.Array:
    kind = column.dtype.kind
    if name in INTEGERS:
        return _integers(column, INTEGERS[name])
    if name in TEXT or kind not in "fiub":
        return _objects(name, [_plain(value) for value in column.tolist()])
    if _is_free(name):
        return pa.array(column, from_pandas=True)
    # A measure is a real number even where all its values happen to be whole.
    narrow = kind == "b" or (kind == "f" and column.dtype.itemsize <= 4)
    return pa.array(column.astype(np.float32 if narrow else np.float64), from_pandas=True)


def _is_free(name: str) -> bool:
    """Whether the type is whatever the values are; `lr`, `threshold` and measures are always real numbers."""
    return is_option(name) and name not in measures.OPTIONS


def _integers(column: np.ndarray, kind: pa.DataType) -> pa.Array:
    if column.dtype.kind in "iu":
        return pa.array(column, kind, safe=True)
    values = [_plain(value) for value in column.tolist()]
    return pa.array([None if value is None else int(value) for value in values], kind)


def _objects(name: str, values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if name in TEXT or not kinds <= {bool, int, float} or (bool in kinds and len(kinds) > 1):
        return pa.array([_text(value) for value in values], pa.string())
    if not _is_free(name):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if not kinds:
        return pa.nulls(len(values))
    only = next(iter(kinds)) if len(kinds) == 1 else float
    return pa.array(values, {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}[only])


def _plain(value: Any) -> Any:
    """None for what is missing, and Python's own number for numpy's."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and value != value else value


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)
