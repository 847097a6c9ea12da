"""The SQLite file of MLflow: made beside and renamed when it is whole; one that is damaged is found and set aside."""

from __future__ import annotations

import itertools
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from clipbench.core.experiment_name import SQLITE_FILES
from clipbench.errors import ClipbenchError
from clipbench.store.atomic_files import DAMAGED, wait_for_lock, writing

FIRST_BYTES = b"SQLite format 3\0"
CHECK_SECONDS = 10.0  # longest time to look for damaged pages: 1 GB takes a few seconds
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def prepare(path: Path, make_tables: Callable[[str], object], *, may_rename: bool) -> str:
    """See to it that a database is whole: make it if there is none, set aside a damaged one if we `may_rename` it.

    Return what to say of a damaged one. Other processes wait: two that make the tables of one file break it.
    """
    note = ""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(path.with_name(f".{path.name}.lock")):
        if problem := _problem(path) if path.exists() else "":
            if not may_rename:
                raise ClipbenchError(f"{path}: {problem}. Rename it, or choose another with `--tracking-uri`.")
            note = f"{path}: {problem}. It was renamed to {_set_aside(path).name}, and a new one is made."
        if not path.exists():
            _set_aside(path)  # the journal of a database that was deleted would be written into the new one
            _make(path, make_tables)
    return note


def _problem(path: Path) -> str:
    """Return why a database cannot be used, as far as a few seconds of reading show; empty if it can."""
    if not path.stat().st_size:
        return "the file is empty"
    with path.open("rb") as file:
        if file.read(len(FIRST_BYTES)) != FIRST_BYTES:
            return "the file is not an SQLite database"
    end = time.monotonic() + CHECK_SECONDS
    try:
        with closing(sqlite3.connect(path, timeout=20)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            # MLflow makes its first experiment when all tables are made.
            if "experiments" not in tables or not database.execute("SELECT 1 FROM experiments").fetchone():
                return "MLflow's tables in it are incomplete"
            database.set_progress_handler(lambda: time.monotonic() > end, 100_000)
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            return "" if found == "ok" else "the database is damaged"
    except sqlite3.DatabaseError as error:
        code = error.sqlite_errorcode & 0xFF
        if code in DAMAGE:
            return "the database is damaged"
        if code == sqlite3.SQLITE_INTERRUPT:
            return ""
        raise


def _make(path: Path, make_tables: Callable[[str], object]) -> None:
    """Make a database under a name that was never used: MLflow's client keeps what it knows of a file by its name."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp*"):
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with writing(path):
        temporary.open("xb").close()  # MLflow retries for minutes if the file cannot be opened
    try:
        make_tables(f"sqlite:///{temporary}")
        with writing(path):
            temporary.replace(path)
    finally:
        for suffix in SQLITE_FILES:
            temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)


def _set_aside(path: Path) -> Path:
    """Rename a database, and first the files that SQLite has beside it; return the new name."""
    numbers = itertools.chain([""], (f".{number}" for number in itertools.count(2)))
    names = (path.with_name(f"{path.name}{number}{DAMAGED}") for number in numbers)
    aside = next(name for name in names if not any(name.with_name(name.name + each).exists() for each in SQLITE_FILES))
    for suffix in SQLITE_FILES:
        source = path.with_name(path.name + suffix)
        if source.exists():
            with writing(source):
                source.replace(aside.with_name(aside.name + suffix))
    return aside
