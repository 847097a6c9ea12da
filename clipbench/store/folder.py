"""The store: what happened to every trial, in Parquet files that appear whole or not at all.

Rows are found by `id`, and a file of `records/` says that its rows in `epochs/` and `steps/` are complete.
`+columns.parquet`, without rows, lists the columns of all files beside it: `pandas.read_parquet(folder)`
takes the columns of the first file that it meets, and would drop the others without a word.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipbench.core.records import WHOLE, Columns, Records, rank
from clipbench.errors import ClipbenchError
from clipbench.store import column_types
from clipbench.store.atomic_files import lock, readable, remove, turn, write_whole

if TYPE_CHECKING:
    from pandas import DataFrame

SERIES = ("epochs", "steps")
TABLES = ("records", *SERIES)
COLUMNS = "+columns"  # sorts before every stem, so that readers of the folder meet it first
STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@=-]*")
SAVED = b"clipbench.saved"  # when, in ns: copying files must not make an old row a new one


class Store:
    """The folder `results/<experiment>/`: the truth for resume, report and mirror."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._seen: dict[str, tuple[tuple[int, int], list[tuple[str, StoredRow]]]] = {}

    def save(self, records: Records, stem: str) -> None:
        """Write one chunk of trials. Its record file comes last: with it, the chunk is done."""
        if not STEM.fullmatch(stem):
            raise ValueError(f"a stem is letters, digits and `_.@=-`, got {stem!r}")
        self._save_weights(records.weights, stem)
        for name in (*SERIES, "records"):
            self._save_table(name, stem, getattr(records, name))

    def done(self) -> set[str]:
        """The trials that need no training; one that failed or was pruned is trained again."""
        return {trial for trial, row in self.winners().items() if row.is_whole}

    def winners(self) -> dict[str, StoredRow]:
        """The row that counts for each trial: one of a whole training, then one that was pruned, then the newest."""
        winners: dict[str, StoredRow] = {}
        for stem in self._stems("records"):
            for trial, row in self._rows(stem):
                if trial not in winners or row.rank >= winners[trial].rank:
                    winners[trial] = row
        return winners

    def stems(self) -> dict[str, list[str]]:
        """The files that count, each with the trials that it speaks for."""
        stems: dict[str, list[str]] = {}
        for trial, row in self.winners().items():
            stems.setdefault(row.stem, []).append(trial)
        return dict(sorted(stems.items()))

    def records(self, ids: Collection[str] | None = None) -> DataFrame:
        """One row a trial: its options, its final numbers, its status."""
        return self._join("records", self._records(ids))

    def rows(self, ids: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
        """The same as Python's own values, each trial with what it has and nothing else."""
        for table in self._records(ids):
            for row in table.to_pylist():
                yield {name: value for name, value in row.items() if value is not None}

    def epochs(self, ids: Collection[str] | None = None) -> DataFrame:
        """One row a trial and epoch."""
        return self._series("epochs", ids)

    def steps(self, ids: Collection[str] | None = None, columns: Sequence[str] | None = None) -> DataFrame:
        """One row a trial and step; `columns` are the measures wanted, beside `id` and `step`."""
        return self._series("steps", ids, columns and ["id", "step", *columns])

    def weights(self, ids: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Final weights as flat arrays, of the trials that kept them."""
        found: dict[str, np.ndarray] = {}
        for stem, trials in self.stems().items():
            path = self._path("weights", stem)
            if path.exists():
                with readable(path), np.load(path, allow_pickle=False) as file:
                    wanted = set(trials).intersection(file.files)
                    found |= {trial: file[trial] for trial in sorted(wanted) if ids is None or trial in ids}
        return found

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the folder (`report.md`), whole or not at all."""
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"{name!r} is outside the store's folder")
        write_whole(path, text.encode(errors="replace"))
        return path

    @contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Be the only one that trains into this folder, or one of those that share it. A killed process holds nothing.

        Those that share it must not train the same trials.
        """
        remedy = "Wait for it to end, or choose another folder with `--results DIR`."
        taken = f"{self.folder}: HOLDER is training into this folder. {remedy}"
        path = self.folder / ".lock"
        if shared:
            with suppress(ClipbenchError), lock(path, taken):  # or what looks like a leftover may be another's work
                self._clean_up()
            with lock(path, taken, shared=True):
                yield
            return
        with lock(path, taken):
            self._clean_up()
            yield
            self._remove_failures()

    def merge(self, other: Store) -> None:
        """Take the files of another store that are not here, or newer there. Its record files come last."""
        for name in ("weights", *SERIES, "records"):
            for stem in other._stems("records"):
                theirs = other._path(name, stem)
                if theirs.exists() and self._saved(stem) < other._saved(stem):
                    write_whole(self._path(name, stem), theirs.read_bytes())
        self._renew_columns()

    def _save_weights(self, weights: dict[str, np.ndarray], stem: str) -> None:
        path = self._path("weights", stem)
        if not weights:
            return remove(path)
        buffer = io.BytesIO()
        np.savez(buffer, **weights)  # type: ignore[arg-type]  # numpy's stub takes the names for its options
        write_whole(path, buffer.getbuffer())

    def _save_table(self, name: str, stem: str, values: Columns) -> None:
        path = self._path(name, stem)
        if not len(values.get("id", ())):
            return remove(path)  # a trial that failed at once has no steps
        table = column_types.to_table(values)
        self._add_columns(name, table.schema)
        write_whole(path, _parquet(table))

    def _add_columns(self, name: str, schema: pa.Schema) -> None:
        if self._with_columns(name, schema) is None:
            return
        with turn(self.folder / ".columns.lock"):  # others may add theirs at the same time
            if merged := self._with_columns(name, schema):
                write_whole(self._path(name, COLUMNS), _parquet(merged.empty_table()))

    def _with_columns(self, name: str, schema: pa.Schema) -> pa.Schema | None:
        """All columns that are known, and these; None where they are known."""
        try:
            known = _open(self._path(name, COLUMNS)).schema_arrow.remove_metadata()
        except ClipbenchError:  # not there, or damaged: nothing in it that the files do not say
            known = pa.schema([])
        merged = column_types.unify([known, schema])
        return None if merged == known else merged

    def _renew_columns(self) -> None:
        """Files of another store may have been copied here, with columns of their own."""
        for name in TABLES:
            schemas = [_open(self._path(name, stem)).schema_arrow for stem in self._stems(name)]
            if schemas:
                self._add_columns(name, column_types.unify(schemas))

    def _clean_up(self) -> None:
        """Remove what a killed process left: half a file, or series that no record file speaks for."""
        self._renew_columns()
        known = set(self._stems("records"))
        for name in (*SERIES, "weights"):
            for stem in set(self._stems(name)) - known:
                remove(self._path(name, stem))
        for leftover in [*self.folder.glob(".*.tmp"), *self.folder.glob("*/.*.tmp")]:
            remove(leftover)

    def _remove_failures(self) -> None:
        """Files in which every trial failed or was pruned, and was trained since: other trials may have shared its
        chunk then."""
        for stem in set(self._stems("records")) - set(self.stems()):
            rows = self._rows(stem)
            if rows and not any(row.is_whole for _, row in rows):
                for name in ("records", *SERIES):
                    remove(self._path(name, stem))

    def _rows(self, stem: str) -> list[tuple[str, StoredRow]]:
        """Read once a file: a run asks again and again while its store grows."""
        stat = self._path("records", stem).stat()
        signature = stat.st_mtime_ns, stat.st_ino
        if self._seen.get(stem, (None,))[0] != signature:
            self._seen[stem] = signature, list(self._read_rows(stem))
        return self._seen[stem][1]

    def _read_rows(self, stem: str) -> Iterator[tuple[str, StoredRow]]:
        path = self._path("records", stem)
        file = _open(path)
        if not {"id", "status"} <= set(file.schema_arrow.names):
            return  # somebody else's file
        with readable(path):
            table = file.read(["id", "status"])
        saved = self._saved(stem)
        for number, (trial, status) in enumerate(zip(*table.to_pydict().values(), strict=True)):
            yield trial, StoredRow(stem, number, status, saved)

    def _saved(self, stem: str) -> int:
        path = self._path("records", stem)
        if not path.exists():
            return 0
        return int((_open(path).schema_arrow.metadata or {}).get(SAVED) or path.stat().st_mtime_ns)

    def _records(self, ids: Collection[str] | None) -> Iterator[pa.Table]:
        wanted = None if ids is None else set(ids)
        rows: dict[str, list[int]] = {}
        for trial, row in self.winners().items():
            if wanted is None or trial in wanted:
                rows.setdefault(row.stem, []).append(row.number)
        for stem in sorted(rows):
            yield self._table("records", stem).take(sorted(rows[stem]))

    def _series(self, name: str, ids: Collection[str] | None, wanted: Sequence[str] | None = None) -> DataFrame:
        return self._join(name, self._winning_series(name, ids, wanted), wanted)

    def _winning_series(
        self, name: str, ids: Collection[str] | None, wanted: Sequence[str] | None
    ) -> Iterator[pa.Table]:
        chosen = None if ids is None else set(ids)
        for stem, trials in self.stems().items():
            kept = [trial for trial in trials if chosen is None or trial in chosen]
            if kept and self._path(name, stem).exists():
                table = self._table(name, stem, wanted)
                yield table.filter(pc.is_in(table["id"], pa.array(kept, pa.string())))

    def _table(self, name: str, stem: str, wanted: Sequence[str] | None = None) -> pa.Table:
        path = self._path(name, stem)
        file = _open(path)
        with readable(path):
            return file.read(wanted and [column for column in file.schema_arrow.names if column in wanted])

    def _join(self, name: str, tables: Iterable[pa.Table], wanted: Sequence[str] | None = None) -> DataFrame:
        frame: DataFrame = column_types.concat(list(tables), column_types.KEYS[name], wanted).to_pandas()
        return frame

    def _path(self, name: str, stem: str) -> Path:
        return self.folder / name / f"{stem}{'.npz' if name == 'weights' else '.parquet'}"

    def _stems(self, name: str) -> list[str]:
        files = (self.folder / name).glob("*.npz" if name == "weights" else "*.parquet")
        return sorted(path.stem for path in files if path.stem != COLUMNS and path.name[0] != ".")


@dataclass(frozen=True)
class StoredRow:
    """Where a trial's row stands, and how much it counts beside others of the same trial."""

    stem: str
    number: int
    status: str
    saved: int  # ns since 1970

    @property
    def is_whole(self) -> bool:
        """Whether the trial was trained as long as it wanted, or until it diverged."""
        return rank(self.status) == WHOLE

    @property
    def rank(self) -> tuple[int, int]:
        return rank(self.status), self.saved


def _parquet(table: pa.Table) -> pa.Buffer:
    stamped = table.replace_schema_metadata({SAVED: str(time.time_ns()).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(stamped, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def _open(path: Path) -> pq.ParquetFile:
    # Not `read_table`: it takes a folder called `lr=0.1` for a column.
    with readable(path):
        return pq.ParquetFile(path, page_checksum_verification=True)
