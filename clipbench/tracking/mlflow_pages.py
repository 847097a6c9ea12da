"""MLflow's own user interface, opened at the table of an experiment's runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from clipbench.errors import ClipbenchError, InputError, Place
from clipbench.tracking import report_to_run
from clipbench.tracking.mlflow_client import MlflowExperiment
from clipbench.tracking.mlflow_connection import connection
from clipbench.tracking.uri import CREDENTIALS, database_file, is_server, redact

START_SECONDS = 60.0  # for MLflow's server, which takes a few


def page(uri: str, name: str, folder: Path) -> str:
    """Return the path of the page with the experiment's runs, and give it the columns of our view."""
    from clipbench.tracking.mlflow_database import DatabaseExperiment

    if (path := database_file(uri)) and not path.exists():
        raise ClipbenchError(f"{path}: there is nothing in MLflow yet. Run `clipbench run {name}` first.")
    with connection(uri, f"`clipbench push {name}` sends what it lacks."):
        experiment = DatabaseExperiment.find(uri, name) or MlflowExperiment.existing(uri, name)
        experiment.tag(report_to_run.experiment_tags(folder))
    return f"/#/experiments/{experiment.id}/runs?workflowType=machine_learning&viewStateShareKey={report_to_run.VIEW}"


def address_of(uri: str, host: str, port: int) -> str:
    """Return the address of MLflow's pages: those of a server, or of the one that is started for a database."""
    if is_server(uri):
        return CREDENTIALS.sub("", uri).rstrip("/")
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"


def server_command(uri: str, artifacts_root: Path, host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves MLflow's pages of a database, and its environment.

    Credentials go through the environment: all users of a machine can read the arguments of a process.
    """
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    command += ["--default-artifact-root", artifacts_root.absolute().as_uri()]
    if redact(uri) == uri:
        return [*command, "--backend-store-uri", uri], {}
    return command, {"MLFLOW_BACKEND_STORE_URI": uri}


def check_port(host: str, port: int) -> None:
    """Raise an error if the port is taken: the browser would show the pages of another server."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            text = f"{host}:{port} cannot be used ({error.strerror or error})."
            remedy = f"Is another `clipbench ui` open? Else choose another, such as `--port {port + 1}`."
            raise InputError.at(Place("--port"), text, remedy) from None


def open_later(address: str) -> None:
    """Open a page in the browser as soon as its server answers, from a process of its own."""
    # Without TERM: a browser that runs in the terminal would take it from the server.
    environment = {name: value for name, value in os.environ.items() if name != "TERM"}
    command = [sys.executable, "-P", "-m", "clipbench.tracking.mlflow_pages", address]
    nothing = subprocess.DEVNULL
    subprocess.Popen(command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing)


def serve(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become the server, which signals then reach."""
    os.execvpe(command[0], command, {**os.environ, **environment})


def main(address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(address.partition("#")[0], timeout=5):
            webbrowser.open(address)
            return
        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1])
