"""The mirror: a process beside training that sends what appears in the store, and never slows or stops it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from clipbench.errors import ClipbenchError
from clipbench.store import Store
from clipbench.tracking.sync import Invocation, Sender
from clipbench.tracking.uri import redact

NICE = 10  # training goes first
LOOK = 0.5  # seconds between two looks into the store
LONGEST_WAIT = 30.0  # seconds between two tries when MLflow is away
ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}


@dataclass(frozen=True)
class MirrorResult:
    """How the mirror ended. `problem` says what to do where trials are pending."""

    pushed: int
    pending: int
    problem: str | None = None


class Mirror:
    """The handle of that process. No method of it raises or waits, but `finish`, which waits."""

    def __init__(self, folder: Path, name: str, uri: str, artifacts_root: Path, invocation: Invocation) -> None:
        self.pushed, self.pending = 0, 0
        self.problem: str | None = None  # while training goes on: show it once
        self._name = name
        self._news = threading.Condition()
        self._heard = time.monotonic()
        self._ended = False
        order = {
            "folder": str(folder.resolve()),
            "name": name,
            "uri": uri,
            "artifacts_root": str(artifacts_root.resolve()),
            "invocation": asdict(invocation),
        }
        self._process = self._start(order)

    def finish(self, timeout: float = 60.0, status: str = "FINISHED") -> MirrorResult:
        """Let it send the rest and the files. It is given up after `timeout` seconds without progress."""
        self._heard = time.monotonic()
        self._tell(f"{status}\n")
        with self._news:
            while not self._ended and (left := self._heard + timeout - time.monotonic()) > 0:
                self._news.wait(left)
            if not self._ended:
                self.problem = self._lost(f"made no progress for {timeout:.0f} s")
        self._clean_up()
        return MirrorResult(self.pushed, self.pending, self.problem)

    def _start(self, order: Mapping[str, Any]) -> subprocess.Popen[str] | None:
        # The order goes through a pipe: everybody on a machine can read the arguments of a process.
        command = [sys.executable, "-P", "-m", "clipbench.tracking.mirror"]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is for training; the mirror is told
                env={**ENVIRONMENT, **os.environ, "PYTHONPATH": _import_path()},
            )
        except OSError as error:
            self.problem, self._ended = self._lost(f"cannot start ({error})"), True
            return None
        self._process = process
        self._listener = threading.Thread(target=self._listen, args=(process,), daemon=True)
        self._listener.start()
        self._tell(json.dumps(order) + "\n")
        return process

    def _tell(self, line: str) -> None:
        with suppress(OSError):  # where it is gone, `_listen` says so
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
                    with suppress(OSError):  # what was written to it last is lost with it
                        pipe.close()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        said: dict[str, Any] = {}
        for line in process.stdout or ():
            said = json.loads(line)
            with self._news:
                self._heard = time.monotonic()
                self.pushed, self.pending, self.problem = said["pushed"], said["pending"], said["problem"]
                self._ended = said["done"]
                self._news.notify_all()
        with self._news:
            if not self._ended:
                self.problem, self._ended = self._lost("has ended unexpectedly"), True
                self._news.notify_all()

    def _lost(self, what: str) -> str:
        remedy = f"Nothing is lost: `clipbench push {self._name}` sends the rest."
        return f"The MLflow mirror {what}. {self.problem or remedy}"


class _Child:
    """The process itself: looks, sends, says how far it is, until it is told to finish."""

    def __init__(self, order: Mapping[str, Any], out: TextIO) -> None:
        self._invocation = Invocation(**order["invocation"])
        self._folder, self._root = Path(order["folder"]), Path(order["artifacts_root"])
        self._name, self._uri, self._out = order["name"], order["uri"], out
        self._sender: Sender | None = None
        self._pushed, self._pending = 0, 0
        self._finish = threading.Event()
        self._status = ""

    def run(self) -> None:
        threading.Thread(target=self._obey, daemon=True).start()
        wait = LOOK
        while True:
            last = self._finish.is_set()
            try:
                problem = self._pass(last)
                wait = LOOK
            except ClipbenchError as error:
                sent = self._sender.sent if self._sender else set()
                self._pending = len(set(Store(self._folder).current_rows()) - sent)
                problem, wait = str(error), min(2 * wait, LONGEST_WAIT)
            self._say(problem, done=last)
            if last:
                return
            self._finish.wait(wait)

    def _pass(self, last: bool) -> str | None:
        if self._sender is None:
            self._sender = Sender(self._folder, self._name, self._uri, self._root, self._invocation)
        before = self._pushed
        self._sender.send(on_progress=lambda count, total: self._progress(before + count, total - count))
        if not last:
            return None
        return self._sender.close(self._status, on_file=lambda: self._say(None))[1]

    def _progress(self, pushed: int, pending: int) -> None:
        self._pushed, self._pending = pushed, pending
        self._say(None)

    def give_up(self, kind: type[BaseException], error: BaseException, _: object) -> None:
        """A fault of this program: said in a line, since nobody sees this process's traceback."""
        reason = redact(f"{kind.__name__}: {error}")
        self._say(f"The MLflow mirror failed ({reason}). `clipbench push {self._name}` sends the rest.", True)

    def _say(self, problem: str | None, done: bool = False) -> None:
        said = {"pushed": self._pushed, "pending": self._pending, "problem": problem, "done": done}
        print(json.dumps(said), file=self._out, flush=True)

    def _obey(self) -> None:
        """A line says how training ended. The end of the pipe says that the parent was killed."""
        self._status = sys.stdin.readline().strip()
        if not self._status:
            os._exit(1)
        self._finish.set()


def _import_path() -> str:
    """The child imports this very package, and nothing of the folder it happens to stand in."""
    here = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


def main() -> None:
    os.nice(NICE)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes nowhere
    child = _Child(json.loads(sys.stdin.readline()), out)
    sys.excepthook = child.give_up
    child.run()
    os._exit(0)  # without waiting for MLflow's own threads


if __name__ == "__main__":
    main()
