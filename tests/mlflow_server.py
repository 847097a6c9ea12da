"""A real `mlflow server`."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from clipbench.tracking.uri import default_uri


class Server:
    """A real `mlflow server` that can be killed and started again."""

    def __init__(self, folder, python=sys.executable):
        self.folder, self.python = folder, python
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self, *options, **variables):
        command = [self.python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", default_uri(self.folder)]
        command += ["--artifacts-destination", (self.folder / "artifacts").as_uri()]
        command += options
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            command,
            env=os.environ | quiet | variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not self._is_healthy():
            assert time.monotonic() < deadline and self.process.poll() is None, "the server does not start"
            time.sleep(0.2)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _is_healthy(self):
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False
