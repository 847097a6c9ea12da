"""Which trials a file of records has, and whether it and what belongs to it can be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from clipbench.core.records import WHOLE, rank
from clipbench.store.atomic_files import DamagedFileError, reading
from clipbench.store.parquet_files import SAVED, open_parquet
from clipbench.store.table_check import UnusableFile, check_records, check_series


@dataclass(frozen=True)
class StoredRow:
    """The place of a trial's row, and its rank among rows of the same trial."""

    trial: str
    stem: str
    number: int
    status: str
    saved: int  # ns since 1970

    @property
    def is_whole(self) -> bool:
        """Whether the trial was trained to its end or until it diverged."""
        return rank(self.status) == WHOLE

    @property
    def rank(self) -> tuple[int, int]:
        return rank(self.status), self.saved


def read_rows(path_of: Callable[[str], Path], stem: str) -> list[StoredRow]:
    """Return the rows of a file of records; `path_of` returns the file of a table. A `UnusableFile` names the file."""
    path = path_of("records")
    try:
        file = open_parquet(path)
        holds = check_records(file.metadata)
        for name, rows in (holds or {}).items():
            path = path_of(name)
            check_series(path, name, rows)
    except DamagedFileError:
        raise UnusableFile(f"{path} is damaged or incomplete") from None
    except UnusableFile as problem:
        raise UnusableFile(f"{path} {problem}") from None
    if holds is None:
        return []  # not a file of clipbench
    with reading(path_of("records")):
        columns = file.read(["id", "status"]).to_pydict().values()
    saved = saved_at(path_of("records"), file)
    return [
        StoredRow(trial, stem, number, status, saved)
        for number, (trial, status) in enumerate(zip(*columns, strict=True))
    ]


def saved_at(path: Path, file: pq.ParquetFile | None = None) -> int:
    """Return when a file was written, in ns since 1970."""
    metadata = (file or open_parquet(path)).metadata.metadata or {}
    return int(metadata.get(SAVED) or path.stat().st_mtime_ns)
