"""How far training is: a bar with the time left on a terminal, plain lines elsewhere, never control codes in a file."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

# Between two plain lines, in seconds.
PLAIN_EVERY = 5.0


class Silent:
    """Notes and nothing else."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def note(self, text: str) -> None:
        self.console.print(f"note: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def begin(self, lane_steps: int, trials: int, done: int) -> None:
        pass

    def advance(self, lane_steps: int) -> None:
        pass

    def end(self) -> None:
        pass


class Plain(Silent):
    """A line now and then."""

    def begin(self, lane_steps: int, trials: int, done: int) -> None:
        self._total, self._done, self._start = lane_steps, 0, time.monotonic()
        self._said = self._start
        self._line(_opening(trials, done))

    def advance(self, lane_steps: int) -> None:
        self._done += lane_steps
        now = time.monotonic()
        if now - self._said >= PLAIN_EVERY and self._done > 0:
            self._said = now
            left = (now - self._start) * (self._total - self._done) / self._done
            self._line(f"{self._done / self._total:4.0%} trained, about {duration(left)} left")

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bar(Silent):
    """A live bar."""

    def begin(self, lane_steps: int, trials: int, done: int) -> None:
        self._make(lane_steps, trials, done)
        self._progress.start()

    def _make(self, lane_steps: int, trials: int, done: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self.console, transient=True)
        self._task: TaskID = self._progress.add_task(_opening(trials, done), total=max(lane_steps, 1))

    def advance(self, lane_steps: int) -> None:
        self._progress.advance(self._task, lane_steps)

    def end(self) -> None:
        self._progress.stop()


def watcher(console: Console, quiet: bool) -> Silent:
    """What suits the console."""
    if quiet:
        return Silent(console)
    return Bar(console) if console.is_terminal else Plain(console)


def duration(seconds: float) -> str:
    """As a person says it: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _opening(trials: int, done: int) -> str:
    already = f" ({done} are done already)" if done else ""
    return (
        f"Training {trials} trial{'' if trials == 1 else 's'}{already}"
        if trials
        else f"Nothing to train: all {done} trials are done"
    )
