"""Whether a file of the store is what it should be, as far as its footer tells: no rows are read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipbench.store import column_types
from clipbench.store.atomic_files import DamagedFileError, reading
from clipbench.store.parquet_files import HOLDS, SAVED

COUNTERS = {"epochs": "epoch", "steps": "step"}


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


class UnusableFile(Exception):
    """Why a file cannot be used."""


def check_records(found: pq.FileMetaData) -> Mapping[str, int] | None:
    """Check the footer of records; return the rows that the other files of its name should have, None if not ours."""
    if SAVED not in (found.metadata or {}) and not {"id", "status"} <= set(found.schema.to_arrow_schema().names):
        return None
    _check_columns(found, {"id": _is_text, "status": _is_text})
    metadata = found.metadata or {}
    if not (metadata.get(SAVED) or b"0").isdigit():
        raise UnusableFile("has no valid time of saving")
    try:
        holds = {str(name): int(rows) for name, rows in json.loads(metadata.get(HOLDS) or b"{}").items()}
    except (ValueError, AttributeError, TypeError):
        raise UnusableFile("does not say what belongs to it") from None
    columns = holds.pop("columns", found.num_columns)
    if columns != found.num_columns:
        raise UnusableFile(f"has {found.num_columns} columns, and not {columns}")
    return holds


def check_series(path: Path, name: str, rows: int) -> None:
    """Check the epochs, steps or weights that belong to records."""
    if name == "weights":
        if rows and not zipfile.is_zipfile(path):
            raise UnusableFile("is damaged or incomplete" if path.exists() else "is missing")
        return
    if not rows:
        return
    try:
        with reading(path):
            found = pq.read_metadata(path)
    except DamagedFileError:
        raise UnusableFile("is damaged or incomplete" if path.exists() else "is missing") from None
    counter = COUNTERS[name]
    _check_columns(found, {"id": _is_text, counter: pa.types.is_integer})
    if found.num_rows != rows:
        raise UnusableFile(f"has {found.num_rows} rows, and not {rows}")


def _check_columns(found: pq.FileMetaData, keys: Mapping[str, object]) -> None:
    schema = found.schema.to_arrow_schema()
    if len(set(schema.names)) < len(schema.names):
        raise UnusableFile("has two columns of one name")
    for name, is_right in keys.items():
        if name not in schema.names or not is_right(schema.field(name).type):  # type: ignore[operator]
            raise UnusableFile(f"has no valid column {name!r}")
        if _nulls(found, schema.names.index(name)):
            raise UnusableFile(f"has rows without {name!r}")
    for field in schema:
        if not column_types.is_right(field.name, field.type):
            raise UnusableFile(f"has a column {field.name!r} of another type")


def _nulls(found: pq.FileMetaData, column: int) -> bool:
    statistics = (found.row_group(group).column(column).statistics for group in range(found.num_row_groups))
    return any(each is not None and each.null_count for each in statistics)
