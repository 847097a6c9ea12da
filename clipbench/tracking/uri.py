"""Tracking URIs: which ones MLflow is used with here, and how they are shown without their credentials."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from clipbench.errors import ClipbenchError, InputError, Place

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
WAY_OUT = "Use a server (`http://host:5000`) or a database (`sqlite:////absolute/path/mlflow.db`)."

CREDENTIALS = re.compile(r"(?<=://)(?!/)\S*@")  # rather too much than half a password
SECRETS = re.compile(r"(?i)\b(password|passwd|pwd|token|secret|api_?key)=[^&\s'\"]+")


def default_uri(results: Path) -> str:
    """The embedded store: no server, no account."""
    return validate_uri(f"sqlite:///{results.resolve()}/mlflow.db", "--results")


def validate_uri(uri: str, source: str = "--tracking-uri") -> str:
    """The URI with an absolute path, or what is wrong with it, before MLflow is imported."""
    scheme = urlsplit(uri).scheme.split("+")[0].lower()
    if scheme not in DATABASES + SERVERS or "://" not in uri:
        raise _problem(source, f"{_kind(uri, scheme)}, got {redact(uri)!r}.", WAY_OUT)
    if scheme != "sqlite":
        return uri
    path = uri.partition("://")[2].removeprefix("/")
    if path in ("", ":memory:"):
        raise _problem(source, f"a store in memory is gone when it is written, got {uri!r}.", WAY_OUT)
    if re.search(r"\?|%[0-9A-Fa-f]{2}", path):
        text = f"the path of an SQLite store cannot have `?` or a percent code in it, got {uri!r}."
        raise _problem(source, text, "Choose another folder, or another store with `--tracking-uri`.")
    return f"sqlite:///{Path(path).absolute()}"


def redact(text: str) -> str:
    """A URI, or a message with URIs in it, without user names, passwords and tokens."""
    return SECRETS.sub(r"\1=***", CREDENTIALS.sub("***@", text))


def database_file(uri: str) -> Path | None:
    """The file of an SQLite store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme.lower() in SERVERS


def ui_command(uri: str, artifacts_root: Path) -> tuple[list[str], dict[str, str]]:
    """What opens MLflow's own UI on a database, and its environment.

    Credentials travel in the environment: everybody on a machine can read the arguments of a process.
    """
    if is_server(uri):
        raise ClipbenchError(f"{redact(uri)} is a server with a UI of its own: open it in a browser.")
    command = [sys.executable, "-m", "mlflow", "ui"]
    command += ["--default-artifact-root", artifacts_root.absolute().as_uri()]
    if redact(uri) == uri:
        return [*command, "--backend-store-uri", uri], {}
    return command, {"MLFLOW_BACKEND_STORE_URI": uri}


def _kind(uri: str, scheme: str) -> str:
    if scheme == "file" or not scheme:
        return "MLflow no longer keeps runs in plain folders"
    return f"unknown kind of MLflow store `{scheme}`"


def _problem(source: str, text: str, remedy: str) -> InputError:
    return InputError.at(Place(source), text, remedy)
