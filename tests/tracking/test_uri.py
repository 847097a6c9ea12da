"""Tracking URIs: what is taken, and what is shown of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from clipbench.errors import InputError
from clipbench.tracking.uri import default_uri, redact, validate_uri


@pytest.mark.parametrize("uri", ["file:///runs", "file:runs", "./mlruns", "/abs/mlruns", "C:\\mlruns", "", "http"])
def test_plain_folders_are_refused_with_the_way_out(uri):
    with pytest.raises(InputError, match=r"--tracking-uri: .*Use a server .* or a database"):
        validate_uri(uri)


def test_an_unknown_scheme_is_refused_without_showing_its_password():
    with pytest.raises(InputError, match=r"unknown kind of tracking URI `ftp`") as caught:
        validate_uri("ftp://me:hunter2@host/x", "MLFLOW_TRACKING_URI")
    assert "hunter2" not in str(caught.value) and "MLFLOW_TRACKING_URI" in str(caught.value)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "sqlite:////a/b?c.db", "sqlite:////a%41/b.db"])
def test_sqlite_stores_that_would_be_lost_are_refused(uri):
    with pytest.raises(InputError):
        validate_uri(uri)


def test_sqlite_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert validate_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert validate_uri(f"sqlite:///{tmp_path}/x.db") == f"sqlite:///{tmp_path}/x.db"
    assert default_uri(Path("results")) == f"sqlite:///{tmp_path}/results/mlflow.db"


@pytest.mark.parametrize("uri", ["http://host:5000", "https://me:pw@host", "postgresql+psycopg2://u:p@h/db"])
def test_servers_and_databases_are_taken_as_they_are(uri):
    assert validate_uri(uri) == uri


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hunter2@host:5000/x",
        "postgresql://me:p@hunter2/w@host/db",
        "request to http://me:hunter2@host/api failed",
        "https://hunter2@host",
        "mssql://host/db?user=me&password=hunter2&x=1",
    ],
)
def test_credentials_are_never_shown(text):
    assert "hunter2" not in redact(text) and "host" in redact(text)


def test_what_has_no_credentials_is_shown_whole():
    for text in ("sqlite:////home/a@b/mlflow.db", "http://host:5000/path", "mail me@host"):
        assert redact(text) == text


def test_checking_a_uri_imports_nothing_heavy():
    script = "import sys, clipbench.tracking.uri, clipbench.tracking.mirror; print({'mlflow', 'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
