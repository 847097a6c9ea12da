"""The column types of the store: a name has the same type in every file, whatever its values are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

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


def is_right(name: str, kind: pa.DataType) -> bool:
    """Whether a column of this name may have values of a type."""
    if pa.types.is_null(kind):
        return True
    if name in INTEGERS:
        return bool(pa.types.is_integer(kind))
    is_text = bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
    if name in TEXT:
        return is_text
    return _is_number(kind) or bool(pa.types.is_boolean(kind)) or (is_text and "/" not in name)  # measures are numbers


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
    cast = [table.cast(pa.schema([schema.field(name) for name in table.column_names])) for table in tables]
    return pa.concat_tables([schema.empty_table(), *cast], promote_options="default")


def with_arm_and_seed(series: pa.Table, records: pa.Table) -> pa.Table:
    """Add the arm and the seed of each row's trial after its id."""
    for position, name in enumerate(ARM, start=1):
        if name in records.column_names and name not in series.column_names and len(series):
            rows = pc.index_in(series["id"], records["id"])
            series = series.add_column(position, name, records[name].take(rows))
    return series


def by_trial(series: pa.Table) -> dict[str, dict[str, np.ndarray]]:
    """Return the numbers of each trial by column."""
    trials = series["id"].combine_chunks().dictionary_encode()
    order = np.argsort(trials.indices.to_numpy(), kind="stable")
    ends = np.cumsum(np.bincount(trials.indices.to_numpy()))
    numbers = {field.name: series[field.name].to_numpy()[order] for field in series.schema if _is_number(field.type)}
    rows = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    return {
        trial: {name: values[part] for name, values in numbers.items()}
        for trial, part in zip(trials.dictionary.to_pylist(), rows, strict=True)
    }


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
    """Return the values with None for what is missing, as text if they have no other common type."""
    if name in INTEGERS:
        return pa.array(column, INTEGERS[name], from_pandas=True)
    if name not in TEXT and not _mixes_bools(column):
        with suppress(pa.ArrowException):  # text among numbers
            array = pa.array(column, _type(name, column.dtype), from_pandas=True)
            if pa.types.is_null(array.type) or pa.types.is_boolean(array.type) or _is_number(array.type):
                return array
    return pa.array([None if value is None or value != value else str(value) for value in column.tolist()], pa.string())


def _mixes_bools(column: np.ndarray) -> bool:
    """Whether an option is on or off in some trials, and a number or text in others."""
    values = column if column.dtype == object else ()
    kinds = {type(value) for value in values if value is not None and value == value}
    return bool in kinds and len(kinds) > 1


def _type(name: str, dtype: np.dtype) -> pa.DataType | None:
    """Return the type of a real number for `lr`, `threshold` and measures, even where all values are whole.

    Other options have the type of their values.
    """
    if is_option(name) and name not in measures.OPTIONS:
        return None
    narrow = dtype.kind == "b" or (dtype.kind == "f" and dtype.itemsize <= 4)
    return pa.float32() if narrow else pa.float64()
