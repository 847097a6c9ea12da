"""Studies in a database instead of a file: which URLs, what can go wrong, and being alone with it.

The only module that knows SQLAlchemy beside what Optuna does with it; imported only where there is a URL.
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

from clipbench.errors import ClipbenchError, InputError, Place, Problem
from clipbench.store.atomic_files import wait_for_lock
from clipbench.tracking.uri import redact

# What pip calls drivers that it knows by another name.
PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "'psycopg[binary]'", "MySQLdb": "mysqlclient"}
# How long somebody who was mistaken in the name of a host waits, and a process for another one that writes.
PATIENCE = {"sqlite": {"timeout": 60}, "postgresql": {"connect_timeout": 10}, "mysql": {"connect_timeout": 10}}
TIMED = ("pysqlite", "psycopg2", "psycopg", "pymysql", "mysqldb")  # drivers that take these options
WAY_OUT = "Write `sqlite:////absolute/path/optuna.db` or `postgresql+psycopg2://user:password@host/database`."

# A lock ends with the connection of a process that was killed. MySQL has names for locks, PostgreSQL numbers.
ASK = {
    "postgresql": "SELECT pg_try_advisory_lock(3239689772)",
    "mysql": "SELECT GET_LOCK('clipbench', 0)",
    "mariadb": "SELECT GET_LOCK('clipbench', 0)",
}
GIVE_BACK = {
    "postgresql": "SELECT pg_advisory_unlock(3239689772)",
    "mysql": "SELECT RELEASE_LOCK('clipbench')",
    "mariadb": "SELECT RELEASE_LOCK('clipbench')",
}
PAUSE = 0.1  # seconds between two tries: who waits within a driver's call cannot be interrupted


def checked(url: str) -> URL:
    """A URL that may be right; raises InputError before anything is started."""
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise _problem(f"no URL of a database, got {redact(url)!r}.") from None
    except ImportError:
        return parsed  # of the driver, which is said when it is needed
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise _problem(f"what is in memory is gone when the search ends, got {url!r}.")
    return parsed


def opened(url: str) -> RDBStorage:
    """Optuna's tables, made if need be."""
    parsed = checked(url)
    backend = parsed.get_backend_name()
    try:
        options = PATIENCE.get(backend, {}) if parsed.get_driver_name() in TIMED else {}
        with alone(create_engine(parsed, connect_args=dict(options), poolclass=NullPool)):  # two would make them twice
            return RDBStorage(url, engine_kwargs={"connect_args": dict(options)})
    except ImportError as error:
        module = error.name or parsed.get_driver_name()
        remedy = f"Type `pip install {PACKAGES.get(module, module)}`."
        raise ClipbenchError(f"--storage {redact(url)}: its driver {module} is not installed. {remedy}") from None
    except SQLAlchemyError as error:
        remedy = "Is it running, and are the user, the password and the name of the database right?"
        if backend == "sqlite":
            remedy = "Does its folder exist, can it be written, and is the file a database?"
        raise ClipbenchError(f"--storage {redact(url)}: cannot be opened: {_reason(error)}. {remedy}") from None
    except RuntimeError as error:  # tables of another release
        remedy = "Choose another database, or install the Optuna that made its tables."
        raise ClipbenchError(f"--storage {redact(url)}: {_reason(error)}. {remedy}") from None


@contextmanager
def reached(url: str) -> Iterator[None]:
    """What talks to a database stands in here: one that is lost amid a search says the way to go on."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        remedy = "Nothing is lost: when it is back, the same command goes on."
        raise ClipbenchError(f"--storage {redact(url)}: {_reason(error)}. {remedy}") from None


@contextmanager
def alone(engine: Engine) -> Iterator[None]:
    """Among all processes that share a database. A kind without such locks counts on the results folder's."""
    kind, file = engine.dialect.name, engine.url.database
    if kind == "sqlite" and file:
        with wait_for_lock(Path(file).with_name(f".{Path(file).name}.lock")):
            yield
    elif kind in ASK:
        with engine.connect() as connection:
            while not _answer(connection, ASK[kind]):
                time.sleep(PAUSE)
            try:
                yield
            finally:
                with suppress(SQLAlchemyError):  # a connection that is lost has lost its lock too
                    _answer(connection, GIVE_BACK[kind])
    else:
        yield


def _answer(connection: Connection, question: str) -> bool:
    """The lock is the session's; a transaction would stay open as long as it is held."""
    answer = connection.execute(text(question)).scalar()
    connection.commit()
    return bool(answer)


def _problem(text: str) -> InputError:
    return InputError.at(Place("--storage"), text, WAY_OUT)


def _reason(error: BaseException) -> str:
    """In a line. What Optuna and SQLAlchemy say of a driver's error is only how they came to it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = redact(str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ")
