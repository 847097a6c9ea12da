"""The connection to MLflow: its output is suppressed, and its errors become messages."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from clipbench.errors import ClipbenchError
from clipbench.tracking.uri import missing_driver, redact

QUIET = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Give up a server that hangs after seconds; MLflow's defaults wait for many minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Our client repeats requests, and knows which.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
REFUSED = ("Connection refused", "NewConnectionError", "NameResolutionError")
CUT = ("Connection reset", "Connection aborted", "IncompleteRead", "Connection broken")
TIMED_OUT = ("Read timed out", "ReadTimeout", "ConnectTimeout")
FULL = ("database or disk is full", "No space left on device")
HTTP_ERROR = re.compile(r"too many (\d+) error responses|failed with error code (\d+)")
REFUSALS = {"401": "the server does not accept the user name, password or token", "403": "the server denies access"}


@contextmanager
def connection(uri: str, remedy: str) -> Iterator[None]:
    """Suppress MLflow's output, and turn its errors into a message with `remedy`."""
    with _without_output():
        try:
            yield
        except ModuleNotFoundError as error:  # SQLAlchemy imports the driver that the URI names
            problem, way_out = missing_driver(error.name or "")
            raise ClipbenchError(f"MLflow at {redact(uri)}: {problem}. {way_out} {remedy}") from error
        except Exception as error:
            # Known by its module: importing MLflow's own exceptions takes seconds, and most runs do without.
            libraries = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
            if not isinstance(error, OSError) and not libraries & {"mlflow", "sqlalchemy", "sqlite3"}:
                raise
            raise ClipbenchError(f"MLflow at {redact(uri)}: {reason(error, uri)}. {remedy}") from error


@contextmanager
def _without_output() -> Iterator[None]:
    added = {name: value for name, value in QUIET.items() if name not in os.environ}
    os.environ.update(added)
    for name in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(name).setLevel("ERROR")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def reason(error: Exception, uri: str = "") -> str:
    """Return in a few words what went wrong, without what is secret."""
    text = redact(str(error), uri)
    if any(sign in text for sign in TIMED_OUT):
        return "no response in time"
    if any(sign in text for sign in REFUSED):
        return "could not connect"
    if any(sign in text for sign in CUT):
        return "the connection was closed before an answer"
    if any(sign in text for sign in FULL):
        return "the disk is full"
    if found := HTTP_ERROR.search(text):
        code = found[1] or found[2]
        return REFUSALS.get(code, f"the server answers with error {code}")
    return text.strip().partition("\n")[0][:300].rstrip(". ") or type(error).__name__


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later: the server was busy, or being restarted."""
    found = HTTP_ERROR.search(str(error))
    return any(sign in str(error) for sign in CUT) or bool(found and (found[1] or found[2])[0] == "5")
