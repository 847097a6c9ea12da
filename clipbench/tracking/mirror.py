"""The mirror: a background process that sends new trials of the store to MLflow while training goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from clipbench.errors import ClipbenchError
from clipbench.store.folder import Store
from clipbench.tracking.invocation import Invocation
from clipbench.tracking.mlflow_client import logs_system_metrics
from clipbench.tracking.sync import Sender
from clipbench.tracking.uri import redact

NICE = 10  # lower priority than training
POLL_SECONDS = 0.5  # between two reads of the store
MOST_SECONDS = 30.0  # between two attempts while MLflow is not available
ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}


@dataclass(frozen=True)
class MirrorResult:
    """What was sent when the mirror ended. `problem` says what to do if trials are pending."""

    pushed: int
    pending: int
    problem: str | None = None


class Mirror:
    """The handle of the background process. Its methods never raise, and only `finish` waits."""

    def __init__(self, folder: Path, name: str, uri: str, artifacts_root: Path, invocation: Invocation) -> None:
        self.pushed, self.pending = 0, 0
        self.problem: str | None = None  # shown once while training goes on
        self._name = name
        self._changed = threading.Condition()
        self._last_message = time.monotonic()
        self._ended = False
        task = {
            "folder": str(folder.resolve()),
            "name": name,
            "uri": uri,
            "artifacts_root": str(artifacts_root.resolve()),
            "invocation": asdict(invocation),
        }
        self._process = self._start(task)

    def finish(
        self, timeout: float = 60.0, status: str = "FINISHED", tell: Callable[[int], None] = lambda pending: None
    ) -> MirrorResult:
        """Wait until the rest and the files are sent. Give up after `timeout` seconds without progress.

        `tell` gets the number of pending trials whenever it has changed.
        """
        self._last_message = time.monotonic()
        self._send(f"{status}\n")
        with self._changed:
            while not self._ended and (left := self._last_message + timeout - time.monotonic()) > 0:
                self._changed.wait(left)
                tell(self.pending)
            if not self._ended:
                self.problem = self._failure(f"made no progress for {timeout:.0f} s")
        self._clean_up()
        return MirrorResult(self.pushed, self.pending, self.problem)

    def _start(self, task: Mapping[str, Any]) -> subprocess.Popen[str] | None:
        # The task goes through a pipe: all users of a machine can read the arguments of a process.
        command = [sys.executable, "-P", "-m", "clipbench.tracking.mirror"]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C interrupts training only; the mirror gets a message
                env={**ENVIRONMENT, **os.environ, "PYTHONPATH": _import_path()},
            )
        except OSError as error:
            self.problem, self._ended = self._failure(f"cannot start ({error})"), True
            return None
        self._process = process
        self._listener = threading.Thread(target=self._listen, args=(process,), daemon=True)
        self._listener.start()
        self._send(json.dumps(task) + "\n")
        return process

    def _send(self, line: str) -> None:
        with suppress(OSError):  # if the process has ended, `_listen` reports it
            if self._process and self._process.stdin:
                self._process.stdin.write(line)
                self._process.stdin.flush()

    def _clean_up(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._listener.join()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    with suppress(OSError):  # unread input is lost with the process
                        pipe.close()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            state = json.loads(line)
            with self._changed:
                self._last_message = time.monotonic()
                self.pushed, self.pending, self.problem = state["pushed"], state["pending"], state["problem"]
                self._ended = state["done"]
                self._changed.notify_all()
        with self._changed:
            if not self._ended:
                self.problem, self._ended = self._failure("has ended unexpectedly"), True
                self._changed.notify_all()

    def _failure(self, what: str) -> str:
        remedy = f"Nothing is lost: `clipbench push {self._name}` sends the rest."
        return f"The MLflow mirror {what}. {self.problem or remedy}"


class _MirrorProcess:
    """The background process: sends new trials and reports its progress until it is told to finish."""

    def __init__(self, task: Mapping[str, Any], out: TextIO) -> None:
        self._invocation = Invocation(**task["invocation"])
        self._folder, self._root = Path(task["folder"]), Path(task["artifacts_root"])
        self._name, self._uri, self._out = task["name"], task["uri"], out
        self._sender: Sender | None = None
        self._pushed, self._pending = 0, 0
        self._finish = threading.Event()
        self._status = ""

    def run(self) -> None:
        threading.Thread(target=self._wait_for_end, daemon=True).start()
        wait = POLL_SECONDS
        while True:
            last = self._finish.is_set()
            try:
                problem = self._send_new(last)
                wait = POLL_SECONDS
            except ClipbenchError as error:
                sent = self._sender.sent if self._sender else set()
                self._pending = len(set(Store(self._folder).current_rows()) - sent)
                problem, wait = str(error), min(2 * wait, MOST_SECONDS)
            self._report(problem, done=last)
            if last:
                return
            self._finish.wait(wait)

    def _send_new(self, last: bool) -> str | None:
        if self._sender is None:
            self._sender = Sender(self._folder, self._name, self._uri, self._root, self._invocation)
            if logs_system_metrics():
                self._sender.monitor()
        before = self._pushed
        self._sender.send(on_progress=lambda count, total: self._progress(before + count, total - count))
        if not last:
            return None
        return self._sender.close(self._status, on_file=lambda: self._report(None))[1]

    def _progress(self, pushed: int, pending: int) -> None:
        self._pushed, self._pending = pushed, pending
        self._report(None)

    def report_error(self, kind: type[BaseException], error: BaseException, _: object) -> None:
        """Report an unexpected error in one line: the traceback of this process is not shown."""
        reason = redact(f"{kind.__name__}: {error}")
        self._report(f"The MLflow mirror failed ({reason}). `clipbench push {self._name}` sends the rest.", True)

    def _report(self, problem: str | None, done: bool = False) -> None:
        state = {"pushed": self._pushed, "pending": self._pending, "problem": problem, "done": done}
        print(json.dumps(state), file=self._out, flush=True)

    def _wait_for_end(self) -> None:
        """Wait for the line that says how training ended, or for the end of the pipe: the parent was killed."""
        self._status = sys.stdin.readline().strip()
        if not self._status:
            os._exit(1)
        self._finish.set()


def _import_path() -> str:
    """The import path of the process: this package, and not the current folder."""
    here = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


def main() -> None:
    os.nice(NICE)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # discard what libraries print
    child = _MirrorProcess(json.loads(sys.stdin.readline()), out)
    sys.excepthook = child.report_error
    child.run()
    os._exit(0)  # without waiting for MLflow's own threads


if __name__ == "__main__":
    main()
