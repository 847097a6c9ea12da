"""What a command draws on a terminal: bars with titles and times, and a cursor that comes back."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cli_helpers import started, write

SLOW = {"name": "./mine.py:net", "pause": 0.02, "looped": True}
HIDE_CURSOR, SHOW_CURSOR = b"\x1b[?25l", b"\x1b[?25h"


class Screen:
    """All that a command has written to its terminal."""

    def __init__(self, process, handle: int) -> None:
        self.process, self._handle, self.shown = process, handle, b""

    def read(self, until: bytes | None = None) -> bytes:
        """Read on until this is shown, or to the end."""
        while until is None or until not in self.shown:
            try:
                more = os.read(self._handle, 65536)
            except OSError:  # nobody is at the other end any more
                more = b""
            if not more:
                break
            self.shown += more
        return self.shown


@contextmanager
def on_terminal(*arguments: object) -> Iterator[Screen]:
    main, side = pty.openpty()
    with started(*arguments, stdout=side, stderr=side) as process:
        os.close(side)
        yield Screen(process, main)
    os.close(main)


def test_training_has_a_bar_with_the_time(tmp_path):
    path = write(tmp_path, model=SLOW, seeds=1)
    with on_terminal("run", path, "--results", tmp_path / "r", "--no-mlflow") as screen:
        shown = screen.read()
        assert screen.process.wait() == 0
    assert "━".encode() in shown
    assert re.search(rb"Training 4 trials.*\d+%.*\d:\d\d:\d\d", shown)
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)


def test_sending_to_mlflow_has_a_bar_and_ctrl_c_ends_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        path = write(tmp_path)
        with on_terminal("run", path, "--results", tmp_path / "r", "--tracking-uri", uri) as screen:
            assert b"Sending 12 trials to MLflow" in screen.read(b"to MLflow")
            os.killpg(screen.process.pid, signal.SIGINT)
            shown = screen.read()
            assert screen.process.wait() == 130
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    assert b"To continue: clipbench run" in shown and b"Traceback" not in shown


def test_each_round_of_a_search_is_a_title(tmp_path):
    sweep = {"trials": 6, "batch": 2, "seeds": 1, "confirm_seeds": 2}
    path = write(tmp_path, model=SLOW, clip=["none", {"name": "norm", "threshold": {"log": [0.1, 10.0]}}], sweep=sweep)
    with on_terminal("sweep", path, "--results", tmp_path / "r", "--no-mlflow") as screen:
        shown = screen.read()
        assert screen.process.wait() == 0
    titles = list(dict.fromkeys(re.findall(rb"Search, round \d of \d", shown)))
    assert titles == [b"Search, round 1 of 3", b"Search, round 2 of 3", b"Search, round 3 of 3"]


def test_ctrl_c_while_a_command_starts_shows_the_cursor_again(tmp_path):
    with on_terminal("run", write(tmp_path), "--results", tmp_path / "r", "--no-mlflow") as screen:
        screen.read(HIDE_CURSOR)
        os.killpg(screen.process.pid, signal.SIGINT)
        shown = screen.read()
        assert screen.process.wait() == 130
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    assert b"Traceback" not in shown
