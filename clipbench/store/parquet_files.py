"""Parquet files as the store writes and opens them: stamped, with checksums."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clipbench.store.atomic_files import reading

SAVED = b"clipbench.saved"  # time in ns, kept in the file: copying a file must not make its rows newer
HOLDS = b"clipbench.holds"  # of records: the rows of the other files of the same name


def parquet_bytes(table: pa.Table, metadata: Mapping[bytes, bytes] | None = None) -> pa.Buffer:
    stamped = table.replace_schema_metadata({SAVED: str(time.time_ns()).encode(), **(metadata or {})})
    sink = pa.BufferOutputStream()
    pq.write_table(stamped, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def open_parquet(path: Path) -> pq.ParquetFile:
    # Not `read_table`, which takes a folder called `lr=0.1` for a column.
    with reading(path):
        return pq.ParquetFile(path, page_checksum_verification=True)


def check_content(path: Path) -> None:
    """Read a whole table or file of weights; raise DamagedFileError if it is damaged anywhere."""
    with reading(path):
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as file:
                if file.testzip():
                    raise zipfile.BadZipFile
        else:
            open_parquet(path).read()
