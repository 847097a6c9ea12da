"""A real PostgreSQL server in a folder, for tests that need one; they are skipped where none is installed."""

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
PROGRAM = shutil.which("initdb") or next((str(place / "initdb") for place in PLACES), None)
IS_INSTALLED = PROGRAM is not None and find_spec("psycopg2") is not None


@contextmanager
def postgresql():
    """Yield the URI of an empty database."""
    # The server refuses to run as root, and its user must be able to reach the folder.
    user = {"user": "postgres"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        if user:
            shutil.chown(folder, "postgres")
        bin, data = Path(PROGRAM).parent, f"{folder}/data"
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
        subprocess.run([bin / "initdb", "-D", data, "-U", "clipbench", "-A", "trust"], **quiet)
        options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
        subprocess.run([bin / "pg_ctl", "-D", data, "-w", "-o", options, "start"], **quiet)
        try:
            yield f"postgresql+psycopg2://clipbench@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([bin / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)
