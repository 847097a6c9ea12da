"""MLflow's pages: their address, the server that shows them, the browser that opens them."""

import http.server
import os
import subprocess
import sys
import threading

import pytest

from clipbench.errors import ClipbenchError, InputError
from clipbench.tracking import mlflow_pages
from clipbench.tracking.uri import default_uri


@pytest.fixture
def web():
    """A web server and the paths that it was asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_a_server_for_a_database_gets_absolute_uris_and_no_password_among_its_arguments(tmp_path):
    command, environment = mlflow_pages.server_command(
        default_uri(tmp_path), tmp_path / "ml artifacts", "127.0.0.1", 5001
    )
    assert f"sqlite:///{tmp_path}/mlflow.db" in command and environment == {}
    assert f"file://{tmp_path}/ml%20artifacts" in command and "5001" in command
    command, environment = mlflow_pages.server_command("postgresql://me:hunter2@host/db", tmp_path, "127.0.0.1", 5000)
    assert "hunter2" not in " ".join(command) and "hunter2" in environment["MLFLOW_BACKEND_STORE_URI"]


@pytest.mark.parametrize(
    ("uri", "host", "address"),
    [
        ("sqlite:////a/mlflow.db", "127.0.0.1", "http://127.0.0.1:5000"),
        ("sqlite:////a/mlflow.db", "0.0.0.0", "http://127.0.0.1:5000"),
        ("https://me:hunter2@mlflow.example.org/", "127.0.0.1", "https://mlflow.example.org"),
    ],
)
def test_the_address_of_the_pages(uri, host, address):
    assert mlflow_pages.address_of(uri, host, 5000) == address


def test_a_port_that_is_taken_is_refused_before_anything_starts(web):
    with pytest.raises(InputError, match=rf"127\.0\.0\.1:{web} cannot be used .*`--port {web + 1}`"):
        mlflow_pages.check_port("127.0.0.1", web)


def test_without_a_database_the_page_is_not_looked_for(tmp_path):
    with pytest.raises(ClipbenchError, match=r"there is nothing in MLflow yet\. Run `clipbench run small` first"):
        mlflow_pages.page(default_uri(tmp_path), "small", tmp_path / "small")
    assert not list(tmp_path.iterdir())


def test_the_browser_opens_when_the_server_answers(web, tmp_path):
    script, opened = tmp_path / "browser", tmp_path / "opened"
    script.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    script.chmod(0o755)
    page = f"http://127.0.0.1:{web}/#/experiments/1/runs?a=b"
    environment = {**os.environ, "BROWSER": f"{script} %s"}
    subprocess.run(
        [sys.executable, "-m", "clipbench.tracking.mlflow_pages", page], env=environment, check=True, timeout=30
    )
    assert opened.read_text() == f"{page}\n"
