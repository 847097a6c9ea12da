"""Studies in a database: supported URLs, error messages, and a lock among all processes that use it.

Imported only if a URL is given, since it imports SQLAlchemy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from clipbench.errors import ClipbenchError, InputError, Place
from clipbench.store.atomic_files import wait_for_lock
from clipbench.tracking.uri import missing_driver, redact

# Seconds to wait for a host that does not answer, and for another process that writes.
TIMEOUTS = {"sqlite": {"timeout": 60}, "postgresql": {"connect_timeout": 10}, "mysql": {"connect_timeout": 10}}
DRIVERS_WITH_TIMEOUT = ("pysqlite", "psycopg2", "psycopg", "pymysql", "mysqldb")  # drivers that take these options
WAY_OUT = "Write `sqlite:////absolute/path/optuna.db` or `postgresql+psycopg2://user:password@host/database`."

# The database releases the lock of a killed process with its connection. MySQL names locks, PostgreSQL numbers them.
MYSQL = "SELECT GET_LOCK('clipbench', 0)", "SELECT RELEASE_LOCK('clipbench')"
POSTGRESQL = "SELECT pg_try_advisory_lock(3239689772)", "SELECT pg_advisory_unlock(3239689772)"
LOCKS = {"postgresql": POSTGRESQL, "mysql": MYSQL, "mariadb": MYSQL}  # to try a lock, and to release it
RETRY_SECONDS = 0.1  # a wait inside the driver could not be interrupted


class Database:
    """A database with the tables of Optuna, which takes the place of `SweepJournal`."""

    def __init__(self, url: str) -> None:
        self._url, self.name = url, redact(url)
        try:
            self._parsed = make_url(url)
            self._parsed.get_dialect()
        except (ArgumentError, NoSuchModuleError, ValueError):
            raise _problem(f"expected the URL of a database, got {self.name!r}.") from None
        except ImportError:
            return  # the missing driver is reported when the database is opened
        if self._parsed.get_backend_name() == "sqlite" and self._parsed.database in (None, "", ":memory:"):
            raise _problem(f"a database in memory is lost when the search ends, got {url!r}.")

    def open(self, folder: Path, note: Callable[[str], None]) -> RDBStorage:
        backend = self._parsed.get_backend_name()
        try:
            timeouts = TIMEOUTS.get(backend, {}) if self._parsed.get_driver_name() in DRIVERS_WITH_TIMEOUT else {}
            options = dict(timeouts)
            # Only one process may create the tables.
            with _locked(create_engine(self._parsed, connect_args=options, poolclass=NullPool)):
                storage = RDBStorage(self._url, engine_kwargs={"connect_args": options})
        except ImportError as error:
            problem, remedy = missing_driver(error.name or self._parsed.get_driver_name())
        except SQLAlchemyError as error:
            problem = f"cannot be opened: {_reason(error)}"
            remedy = "Check that the server runs, and the user, password and name of the database."
            if backend == "sqlite":
                remedy = "Check that its folder exists and is writable, and that the file is a database."
        except RuntimeError as error:  # tables of another version of Optuna
            problem = _reason(error)
            remedy = "Choose another database, or install the version of Optuna that created its tables."
        else:
            self._engine = storage.engine
            return storage
        raise ClipbenchError(f"--storage {self.name}: {problem}. {remedy}")

    @contextmanager
    def connection(self) -> Iterator[None]:
        try:
            yield
        except (StorageInternalError, SQLAlchemyError) as error:
            remedy = "Nothing is lost: the same command continues once the database is available."
            raise ClipbenchError(f"--storage {self.name}: {_reason(error)}. {remedy}") from None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with _locked(self._engine):
            yield


@contextmanager
def _locked(engine: Engine) -> Iterator[None]:
    """Wait for a lock among all processes that use the database, if it has such locks."""
    kind, file = engine.dialect.name, engine.url.database
    if kind == "sqlite" and file:
        with wait_for_lock(Path(file).with_name(f".{Path(file).name}.lock")):
            yield
    elif kind in LOCKS:
        lock, unlock = LOCKS[kind]
        with engine.connect() as connection:
            while not _query(connection, lock):
                time.sleep(RETRY_SECONDS)
            try:
                yield
            finally:
                with suppress(SQLAlchemyError):  # a lost connection has released its lock
                    _query(connection, unlock)
    else:
        yield


def _query(connection: Connection, query: str) -> bool:
    """Return the result of a query, and end its transaction: the lock belongs to the connection."""
    found = connection.execute(text(query)).scalar()
    connection.commit()
    return bool(found)


def _problem(text: str) -> InputError:
    return InputError.at(Place("--storage"), text, WAY_OUT)


def _reason(error: BaseException) -> str:
    """Return the message of the driver's error, without those of Optuna and SQLAlchemy around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = redact(str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ")
