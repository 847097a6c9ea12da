"""Tracking URIs of MLflow: which are supported, and how they are shown without credentials."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from pathlib import Path
from urllib.parse import unquote, urlsplit

from clipbench.core.experiment_name import DATABASE
from clipbench.errors import InputError, Place

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
WAY_OUT = "Use a server (`http://host:5000`) or a database (`sqlite:////absolute/path/mlflow.db`)."

# Packages of database drivers whose module has another name.
PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "'psycopg[binary]'", "MySQLdb": "mysqlclient"}

CREDENTIALS = re.compile(r"(?<=://)(?!/)\S*@")  # rather too much than part of a password
IN_ENVIRONMENT = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
SHORTEST = 4  # characters of a secret that is searched for in messages
SECRETS = re.compile(r"(?i)\b(password|passwd|pwd|token|secret|api_?key)=[^&\s'\"]+")


def default_uri(results: Path) -> str:
    """The SQLite database in the results folder: no server, no account."""
    return validate_uri(f"sqlite:///{results.resolve()}/{DATABASE}", "--results")


def validate_uri(uri: str, source: str = "--tracking-uri") -> str:
    """Return the URI with an absolute path, or raise InputError, before MLflow is imported."""
    scheme = urlsplit(uri).scheme.split("+")[0].lower()
    if scheme not in DATABASES + SERVERS or "://" not in uri:
        raise _problem(source, f"{_kind(uri, scheme)}, got {redact(uri)!r}.", WAY_OUT)
    if scheme != "sqlite":
        return uri
    path = uri.partition("://")[2].removeprefix("/")
    if path in ("", ":memory:"):
        raise _problem(source, f"a database in memory is lost when the process ends, got {uri!r}.", WAY_OUT)
    if re.search(r"\?|%[0-9A-Fa-f]{2}", path):
        text = f"the path of an SQLite database must not contain `?` or a percent code, got {uri!r}."
        raise _problem(source, text, "Choose another folder, or another database with `--tracking-uri`.")
    return f"sqlite:///{Path(path).absolute()}"


def redact(text: str, uri: str = "") -> str:
    """Remove user names, passwords and tokens from a URI or from a message with URIs.

    Remove what the environment and `uri` hold as well: a server may repeat it in its answer.
    """
    for secret in filter(None, [*map(os.environ.get, IN_ENVIRONMENT), *_secrets(uri)]):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, "***")
    return SECRETS.sub(r"\1=***", CREDENTIALS.sub("***@", text))


def _secrets(uri: str) -> list[str]:
    """Return the password of a URI in each form in which it is sent."""
    parts = urlsplit(uri)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return [password, parts.password or "", b64encode(f"{user}:{password}".encode()).decode()] if password else []


def missing_driver(module: str) -> tuple[str, str]:
    """Return what to say of a database driver that is not installed, and what to do."""
    return f"the driver {module} is not installed", f"Run `pip install {PACKAGES.get(module, module)}`."


def database_file(uri: str) -> Path | None:
    """Return the file of an SQLite database, or None for other URIs."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme.lower() in SERVERS


def _kind(uri: str, scheme: str) -> str:
    if scheme == "file" or not scheme:
        return "MLflow no longer stores runs in plain folders"
    return f"unknown kind of tracking URI `{scheme}`"


def _problem(source: str, text: str, remedy: str) -> InputError:
    return InputError.at(Place(source), text, remedy)
