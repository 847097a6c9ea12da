"""Studies in a database: supported URLs, error messages, and a lock among all processes that use it.

Imported only if a URL is given, since it imports SQLAlchemy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from clipbench.errors import ClipbenchError, InputError, Place
from clipbench.store.atomic_files import wait_for_lock
from clipbench.tracking.uri import redact

# Packages of drivers whose module has another name.
PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "'psycopg[binary]'", "MySQLdb": "mysqlclient"}
# Seconds to wait for a host that does not answer, and for another process that writes.
TIMEOUTS = {"sqlite": {"timeout": 60}, "postgresql": {"connect_timeout": 10}, "mysql": {"connect_timeout": 10}}
DRIVERS_WITH_TIMEOUT = ("pysqlite", "psycopg2", "psycopg", "pymysql", "mysqldb")  # drivers that take these options
WAY_OUT = "Write `sqlite:////absolute/path/optuna.db` or `postgresql+psycopg2://user:password@host/database`."

# The database releases the lock of a killed process with its connection. MySQL names locks, PostgreSQL numbers them.
TRY_LOCK = {
    "postgresql": "SELECT pg_try_advisory_lock(3239689772)",
    "mysql": "SELECT GET_LOCK('clipbench', 0)",
    "mariadb": "SELECT GET_LOCK('clipbench', 0)",
}
UNLOCK = {
    "postgresql": "SELECT pg_advisory_unlock(3239689772)",
    "mysql": "SELECT RELEASE_LOCK('clipbench')",
    "mariadb": "SELECT RELEASE_LOCK('clipbench')",
}
RETRY_SECONDS = 0.1  # a wait inside the driver could not be interrupted


def check(url: str) -> URL:
    """Return the parsed URL, or raise InputError, before anything is started."""
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise _problem(f"expected the URL of a database, got {redact(url)!r}.") from None
    except ImportError:
        return parsed  # the missing driver is reported when the database is opened
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise _problem(f"a database in memory is lost when the search ends, got {url!r}.")
    return parsed


def open_database(url: str) -> RDBStorage:
    """Open Optuna's storage in a database; create its tables if they do not exist."""
    parsed = check(url)
    backend = parsed.get_backend_name()
    try:
        options = TIMEOUTS.get(backend, {}) if parsed.get_driver_name() in DRIVERS_WITH_TIMEOUT else {}
        # Only one process may create the tables.
        with exclusive(create_engine(parsed, connect_args=dict(options), poolclass=NullPool)):
            return RDBStorage(url, engine_kwargs={"connect_args": dict(options)})
    except ImportError as error:
        module = error.name or parsed.get_driver_name()
        remedy = f"Run `pip install {PACKAGES.get(module, module)}`."
        raise ClipbenchError(f"--storage {redact(url)}: the driver {module} is not installed. {remedy}") from None
    except SQLAlchemyError as error:
        remedy = "Check that the server runs, and the user, password and name of the database."
        if backend == "sqlite":
            remedy = "Check that its folder exists and is writable, and that the file is a database."
        raise ClipbenchError(f"--storage {redact(url)}: cannot be opened: {_reason(error)}. {remedy}") from None
    except RuntimeError as error:  # tables of another version of Optuna
        remedy = "Choose another database, or install the version of Optuna that created its tables."
        raise ClipbenchError(f"--storage {redact(url)}: {_reason(error)}. {remedy}") from None


@contextmanager
def connection(url: str) -> Iterator[None]:
    """Turn the error of a lost database into a message that says how to continue."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        remedy = "Nothing is lost: the same command continues once the database is available."
        raise ClipbenchError(f"--storage {redact(url)}: {_reason(error)}. {remedy}") from None


@contextmanager
def exclusive(engine: Engine) -> Iterator[None]:
    """Wait for a lock among all processes that use the database, if it has such locks."""
    kind, file = engine.dialect.name, engine.url.database
    if kind == "sqlite" and file:
        with wait_for_lock(Path(file).with_name(f".{Path(file).name}.lock")):
            yield
    elif kind in TRY_LOCK:
        with engine.connect() as connection:
            while not _query(connection, TRY_LOCK[kind]):
                time.sleep(RETRY_SECONDS)
            try:
                yield
            finally:
                with suppress(SQLAlchemyError):  # a lost connection has released its lock
                    _query(connection, UNLOCK[kind])
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
