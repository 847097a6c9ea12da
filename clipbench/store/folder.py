"""The results folder: the records, epochs and steps of all trials in Parquet files that are written atomically.

Rows are found by `id`. A file in `records/` is written last: it says that its rows in `epochs/` and `steps/` are
complete. `+columns.parquet` has no rows and lists the columns of all files in its folder, since
`pandas.read_parquet(folder)` takes the columns of the first file and silently drops the others.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipbench.core.records import Records
from clipbench.errors import ClipbenchError
from clipbench.store import column_types
from clipbench.store.atomic_files import (
    DAMAGED,
    DamagedFileError,
    lock,
    reading,
    remove,
    wait_for_lock,
    write_atomically,
    writing,
)
from clipbench.store.folder_check import check_folder
from clipbench.store.parquet_files import HOLDS, open_parquet, parquet_bytes
from clipbench.store.stored_rows import StoredRow, read_rows, saved_at
from clipbench.store.table_check import UnusableFile

if TYPE_CHECKING:
    from pandas import DataFrame

SERIES = ("epochs", "steps")
TABLES = ("records", *SERIES)
COLUMNS = "+columns"  # sorts before every other file name, so that it is read first
STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@=-]*")


class Store:
    """The folder `results/<experiment>/`, from which runs resume, reports are made and MLflow is filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._seen: dict[str, tuple[tuple[int, int], list[StoredRow]]] = {}
        self.unusable: dict[str, str] = {}  # of the files that were read: why they are left out, by their name
        self._set_aside: list[str] = []

    def save(self, records: Records, stem: str) -> None:
        """Write one chunk of trials to files of the name `stem`. The records come last and complete the chunk."""
        if not STEM.fullmatch(stem):
            raise ValueError(f"stem must consist of letters, digits and `_.@=-`, got {stem!r}")
        self._save_weights(records.weights, stem)
        table = column_types.to_table(records.records)
        holds = {"weights": len(records.weights), "columns": table.num_columns}
        for name in SERIES:
            series = column_types.to_table(getattr(records, name))
            holds[name] = len(series)
            self._save_table(name, stem, column_types.with_arm_and_seed(series, table))
        self._save_table("records", stem, table, {HOLDS: json.dumps(holds).encode()})

    def done(self) -> set[str]:
        """Return the trials that need no training. Failed and pruned trials are trained again."""
        return {trial for trial, row in self.current_rows().items() if row.is_whole}

    def current_rows(self) -> dict[str, StoredRow]:
        """Return the row in use for each trial: that of a whole training, else of a pruned one, else the newest."""
        current: dict[str, StoredRow] = {}
        for stem in self._stems("records"):
            for row in self._rows(stem):
                if row.trial not in current or row.rank >= current[row.trial].rank:
                    current[row.trial] = row
        return current

    def stems(self) -> dict[str, list[str]]:
        """Return the names of the files in use, each with the trials whose current row it has."""
        return {stem: [row.trial for row in rows] for stem, rows in self._files(None).items()}

    def records(self, ids: Collection[str] | None = None) -> DataFrame:
        """Return one row per trial: its options, its final values, its status."""
        return self._frame("records", ids)

    def rows(self, ids: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the records as dictionaries of Python values, without the empty ones."""
        for table in self._current("records", ids):
            for row in table.to_pylist():
                yield {name: value for name, value in row.items() if value is not None}

    def epochs(self, ids: Collection[str] | None = None) -> DataFrame:
        """Return one row per trial and epoch."""
        return self._frame("epochs", ids)

    def steps(self, ids: Collection[str] | None = None, columns: Sequence[str] | None = None) -> DataFrame:
        """Return one row per trial and step; `columns` selects the measures beside `id` and `step`."""
        return self._frame("steps", ids, columns and ["id", "step", *columns])

    def arrays(self, name: str, ids: Collection[str]) -> dict[str, dict[str, np.ndarray]]:
        """Return the numbers of `epochs` or `steps` by trial and column, without the cost of a data frame."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for table in self._current(name, ids):
            found |= column_types.by_trial(table)
        return found

    def weights(self, ids: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Return the final weights as flat arrays, for the trials that saved them."""
        found: dict[str, np.ndarray] = {}
        for stem, rows in self._files(ids).items():
            path = self._path("weights", stem)
            if path.exists():
                with reading(path), np.load(path, allow_pickle=False) as file:
                    found |= {trial: file[trial] for trial in sorted({row.trial for row in rows}.intersection(file))}
        return found

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the folder such as `report.md`, atomically."""
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"{name!r} is outside the store's folder")
        write_atomically(path, text.encode(errors="replace"))
        return path

    @contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Lock the folder for training, alone or `shared` with processes that train other trials."""
        remedy = "Wait for it to end, or choose another folder with `--results DIR`."
        taken = f"{self.folder}: HOLDER is training into this folder. {remedy}"
        path = self.folder / ".lock"
        check_folder(self.folder)
        if shared:
            # Only while no other process trains: its unfinished files look like leftovers.
            with suppress(ClipbenchError), lock(path, taken):
                self._clean_up()
            with lock(path, taken, shared=True):
                yield
            return
        with lock(path, taken):
            self._clean_up()
            yield
            self._remove_failures()

    def merge(self, other: Store) -> None:
        """Copy the files of another store that are missing or older here and can be used, the records last."""
        for name in ("weights", *SERIES, "records"):
            for stem in filter(other._rows, other._stems("records")):
                theirs = other._path(name, stem)
                if theirs.exists() and self._saved(stem) < other._saved(stem):
                    write_atomically(self._path(name, stem), theirs.read_bytes())
        self._renew_columns()

    def _save_weights(self, weights: dict[str, np.ndarray], stem: str) -> None:
        path = self._path("weights", stem)
        if not weights:
            return remove(path)
        buffer = io.BytesIO()
        np.savez(buffer, **weights)  # type: ignore[arg-type]  # numpy's stub takes the names for its options
        write_atomically(path, buffer.getbuffer())

    def _save_table(self, name: str, stem: str, table: pa.Table, metadata: Mapping[bytes, bytes] | None = None) -> None:
        path = self._path(name, stem)
        if not len(table):
            return remove(path)  # a trial that failed at once has no steps
        self._add_columns(name, [table.schema])
        write_atomically(path, parquet_bytes(table, metadata))

    def _add_columns(self, name: str, schemas: Sequence[pa.Schema]) -> None:
        with wait_for_lock(self.folder / ".columns.lock"):
            try:
                known = open_parquet(self._path(name, COLUMNS)).schema_arrow.remove_metadata()
            except ClipbenchError:  # missing or damaged: rebuilt from the files
                known = pa.schema([])
            merged = column_types.unify([known, *schemas])
            if merged != known:
                write_atomically(self._path(name, COLUMNS), parquet_bytes(merged.empty_table()))

    def _renew_columns(self) -> None:
        """Add the columns of files that were copied into the folder."""
        for name in TABLES:
            self._add_columns(name, [open_parquet(self._path(name, stem)).schema_arrow for stem in self._stems(name)])

    def _clean_up(self) -> None:
        """Set aside what is damaged, and remove what a killed process left: temporary files, series without records."""
        for stem in self._stems("records"):
            self._rows(stem)
        for stem in list(self.unusable):
            self._rename(stem, self.unusable.pop(stem))
        self._renew_columns()
        known = set(self._stems("records"))
        for name in (*SERIES, "weights"):
            for stem in set(self._stems(name)) - known:
                remove(self._path(name, stem))
        for leftover in [*self.folder.glob(".*.tmp"), *self.folder.glob("*/.*.tmp")]:
            remove(leftover)

    def _remove_failures(self) -> None:
        """Remove files whose trials all failed or were pruned, and have been trained since in other files."""
        for stem in set(self._stems("records")) - set(self.stems()):
            rows = self._rows(stem)
            if rows and not any(row.is_whole for row in rows):
                for name in ("records", *SERIES):
                    remove(self._path(name, stem))

    def note(self, text: str) -> None:
        """Add what another part of the program set aside."""
        self._set_aside.append(text)

    @property
    def notes(self) -> list[str]:
        """What was set aside, and what is left out until a run sets it aside."""
        remedy = "Its trials are left out; `clipbench run` sets the file aside and trains them again."
        return [*self._set_aside, *(f"{problem}. {remedy}" for problem in self.unusable.values())]

    def _rename(self, stem: str, problem: str) -> None:
        """Rename all files of a name, so that its trials are trained again."""
        text = f"The files of this name were renamed to {stem}.*{DAMAGED}, and their trials are trained again."
        self._set_aside.append(f"{problem}. {text}")
        for name in ("records", *SERIES, "weights"):
            path = self._path(name, stem)
            if path.exists():
                with writing(path):
                    path.replace(path.with_name(path.name + DAMAGED))

    def _rows(self, stem: str) -> list[StoredRow]:
        """Return the rows of a file, read once: a run asks often while its store grows.

        A file has none where it cannot be used, or one that belongs to it.
        """
        stat = self._path("records", stem).stat()
        signature = stat.st_mtime_ns, stat.st_ino
        if self._seen.get(stem, (None,))[0] != signature:
            rows: list[StoredRow] = []
            try:
                rows = read_rows(partial(self._path, stem=stem), stem)
            except UnusableFile as problem:
                self.unusable[stem] = str(problem)
            self._seen[stem] = signature, rows
        return self._seen[stem][1]

    def _saved(self, stem: str) -> int:
        path = self._path("records", stem)
        return saved_at(path) if path.exists() else 0

    def _files(self, ids: Collection[str] | None) -> dict[str, list[StoredRow]]:
        """Return the current rows of the trials by the name of their file."""
        wanted = None if ids is None else set(ids)
        files: dict[str, list[StoredRow]] = {}
        for row in self.current_rows().values():
            if wanted is None or row.trial in wanted:
                files.setdefault(row.stem, []).append(row)
        return dict(sorted(files.items()))

    def _current(
        self, name: str, ids: Collection[str] | None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield what each file has of the trials, or the `columns` of it."""
        for stem, rows in self._files(ids).items():
            if name == "records":
                yield self._table(name, stem).take(sorted(row.number for row in rows))
            elif self._path(name, stem).exists():
                table = self._table(name, stem, columns)
                if columns is None:  # older files lack the arm and the seed
                    named = self._table("records", stem, ["id", *column_types.ARM])
                    table = column_types.with_arm_and_seed(table, named)
                yield table.filter(pc.is_in(table["id"], pa.array([row.trial for row in rows])))

    def _table(self, name: str, stem: str, columns: Sequence[str] | None = None) -> pa.Table:
        path = self._path(name, stem)
        try:
            file = open_parquet(path)
            with reading(path):
                return file.read(columns and [column for column in file.schema_arrow.names if column in columns])
        except DamagedFileError as error:
            text = str(error)
            with suppress(ClipbenchError), self.lock():  # nobody else writes
                self._rename(stem, f"{path} is damaged")
                aside = f"{path}: the file is damaged, and was set aside as {path.name}{DAMAGED}."
                text = f"{aside} `clipbench run` trains its trials again."
            raise DamagedFileError(text) from error

    def _frame(self, name: str, ids: Collection[str] | None, columns: Sequence[str] | None = None) -> DataFrame:
        tables = list(self._current(name, ids, columns))
        frame: DataFrame = column_types.concat(tables, column_types.KEYS[name], columns).to_pandas()
        return frame

    def _path(self, name: str, stem: str) -> Path:
        return self.folder / name / f"{stem}{'.npz' if name == 'weights' else '.parquet'}"

    def _stems(self, name: str) -> list[str]:
        files = (self.folder / name).glob("*.npz" if name == "weights" else "*.parquet")
        return sorted(path.stem for path in files if path.stem != COLUMNS and path.name[0] != ".")
