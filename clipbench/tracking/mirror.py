"""The mirror: a process that sends new trials of the store to MLflow, beside training or for `clipbench push`."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clipbench.tracking.invocation import Invocation
from clipbench.tracking.mirror_state import MirrorState
from clipbench.tracking.uri import redact

ENVIRONMENT = {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Mirror:
    """The handle of the process. Its methods never raise, and only `finish` waits."""

    def __init__(
        self,
        folder: Path,
        name: str,
        uri: str,
        artifacts_root: Path,
        invocation: Invocation,
        *,
        beside_training: bool = True,
    ) -> None:
        self.state = MirrorState()
        self.uri = redact(uri)
        self._remedy = f"Nothing is lost: `clipbench push {name}` sends the rest."
        self._changed = threading.Condition()
        self._last_message = time.monotonic()
        task = {
            "folder": str(folder.resolve()),
            "name": name,
            "uri": uri,
            "artifacts_root": str(artifacts_root.absolute()),
            "invocation": asdict(invocation),
            "beside_training": beside_training,
        }
        self._process = self._start(task)

    def finish(
        self,
        patience: float = 60.0,
        most: float = math.inf,
        status: str = "FINISHED",
        tell: Callable[[MirrorState], None] = lambda state: None,
    ) -> MirrorState:
        """Wait until the rest and the files are sent: at most `most` seconds, or `patience` seconds without an answer.

        `tell` gets the state whenever MLflow has answered.
        """
        self._last_message = began = time.monotonic()
        self._send(f"{status}\n")
        with self._changed:
            while not self.state.done:
                now = time.monotonic()
                if now >= self._last_message + patience:
                    self._fail(f"no answer for {patience:.0f} s")
                elif now >= began + most:
                    self._fail(f"not done after {most:.0f} s")
                else:
                    self._changed.wait(min(self._last_message + patience, began + most) - now)
                    tell(self.state)
        self._clean_up()
        return self.state

    def _start(self, task: Mapping[str, Any]) -> subprocess.Popen[str] | None:
        # The task goes through a pipe: all users of a machine can read the arguments of a process.
        command = [sys.executable, "-P", "-m", "clipbench.tracking.mirror_process"]
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
            self._fail(f"the process that sends cannot start ({error})")
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
            with self._changed:
                self._last_message = time.monotonic()
                self.state = MirrorState(**json.loads(line))
                self._changed.notify_all()
        with self._changed:
            if not self.state.done:
                self._fail("the process that sends has ended unexpectedly")
                self._changed.notify_all()

    def _fail(self, what: str) -> None:
        """End, with the problem that MLflow had before if there was one: it says more."""
        problem = self.state.problem or f"MLflow at {self.uri}: {what}. {self._remedy}"
        self.state = replace(self.state, problem=problem, done=True)


def _import_path() -> str:
    """The import path of the process: this package, and not the current folder."""
    here = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
