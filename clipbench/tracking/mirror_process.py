"""The process of the mirror: it sends new trials and tells how far it is, until it is told to finish."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from clipbench.errors import ClipbenchError
from clipbench.store.folder import Store
from clipbench.tracking.invocation import Invocation
from clipbench.tracking.mirror_state import MirrorState
from clipbench.tracking.mlflow_client import logs_system_metrics
from clipbench.tracking.sender import Sender
from clipbench.tracking.uri import redact

NICE = 10  # a tenth of a core that a worker uses; with less, it would not get on where other programs compute
THREADS = Path("/proc/self/task")  # on Linux, each has a priority of its own
AUTOGROUP = Path("/proc/self/autogroup")  # and a session has one as a whole
POLL_SECONDS = 0.5  # between two reads of the store
MOST_SECONDS = 30.0  # between two attempts while MLflow is not available
ATTEMPTS = 3  # at the end, one after another, that send nothing
ANSWER_SECONDS = 1.0  # between two messages that MLflow answers


class MirrorProcess:
    """Sends new trials until it is told to finish; then tries again as long as an attempt sends something."""

    def __init__(self, task: Mapping[str, Any], out: TextIO) -> None:
        self._invocation = Invocation(**task["invocation"])
        self._folder, self._root = Path(task["folder"]), Path(task["artifacts_root"])
        self._name, self._uri, self._out = task["name"], task["uri"], out
        self._sender: Sender | None = None
        self._state = MirrorState()
        self._lock = threading.Lock()  # several threads hear answers
        self._last_report = 0.0
        self._finish = threading.Event()
        self._status = ""

    def run(self) -> None:
        threading.Thread(target=self._wait_for_end, daemon=True).start()
        wait, attempts, sent = POLL_SECONDS, 0, (0, 0)
        while True:
            last = self._finish.is_set()
            try:
                problem, done, wait = self._send_new(last), last, POLL_SECONDS
            except ClipbenchError as error:
                problem, wait = str(error), min(2 * wait, MOST_SECONDS)
                attempts = attempts + 1 if last and sent == self._sent() else 0
                sent, done = self._sent(), attempts >= ATTEMPTS
                self._count_pending()
            self._report(problem=problem, done=done)
            if done:
                return
            if last:
                time.sleep(POLL_SECONDS)
            elif self._finish.wait(wait):
                wait = POLL_SECONDS

    def report_error(self, kind: type[BaseException], error: BaseException, _: object) -> None:
        """Report an unexpected error in one line: the traceback of this process is not shown."""
        reason = redact(f"{kind.__name__}: {error}", self._uri)
        problem = f"The MLflow mirror failed ({reason}). `clipbench push {self._name}` sends the rest."
        self._report(problem=problem, done=True)

    def _send_new(self, last: bool) -> str | None:
        if self._sender is None:
            given = self._folder, self._name, self._uri, self._root, self._invocation
            self._sender = Sender(*given, on_answer=self._answered)
            if logs_system_metrics():
                self._sender.monitor()
        self._sender.send(on_trial=lambda: self._report(problem=None))
        if not last:
            return None
        files, problem = self._sender.close(self._status, on_file=self._answered)
        self._state = replace(self._state, files=files)
        return problem

    def _sent(self) -> tuple[int, int]:
        """What grows with each attempt that is worth another one: trials sent, and damaged files set aside."""
        return (self._sender.pushed, len(self._sender.notes)) if self._sender else (0, 0)

    def _count_pending(self) -> None:
        if self._sender:
            self._sender.count_pending()
        else:
            self._state = replace(self._state, pending=len(Store(self._folder).current_rows()))

    def _answered(self) -> None:
        if time.monotonic() - self._last_report >= ANSWER_SECONDS:
            self._report()

    def _report(self, **changes: Any) -> None:
        with self._lock:
            if sender := self._sender:
                changes |= {"pushed": sender.pushed, "pending": sender.pending, "notes": tuple(sender.notes)}
            self._state = replace(self._state, **changes)
            self._last_report = time.monotonic()
            print(json.dumps(asdict(self._state)), file=self._out, flush=True)

    def _wait_for_end(self) -> None:
        """Wait for the line that says how training ended, or for the end of the pipe: the parent was killed."""
        self._status = sys.stdin.readline().strip()
        if not self._status:
            os._exit(1)
        set_priority(0)
        self._finish.set()


def set_priority(nice: int) -> None:
    """Set the priority of all threads. Only root may raise it again: for other users it stays low."""
    threads = [int(path.name) for path in THREADS.glob("*")] or [0]
    with suppress(OSError):
        for thread in threads:
            os.setpriority(os.PRIO_PROCESS, thread, nice)
    with suppress(OSError):
        AUTOGROUP.write_text(str(nice))


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # discard what libraries print
    task = json.loads(sys.stdin.readline())
    if task["beside_training"]:
        set_priority(NICE)
    child = MirrorProcess(task, out)
    sys.excepthook = child.report_error
    child.run()
    os._exit(0)  # without waiting for MLflow's own threads


if __name__ == "__main__":
    main()
