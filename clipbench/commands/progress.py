"""The progress of training: a live bar in a terminal, plain lines without control codes elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

LINE_EVERY = 5.0  # seconds between two plain lines


@dataclass(frozen=True)
class StudyProgress:
    """How far the search of one arm is."""

    label: str
    best: str  # the values of the best point; empty if there is none yet
    score: float | None
    tried: int
    total: int
    pruned: int
    diverged: int  # points with a diverged trial


class Progress:
    """Print notes and nothing else; the base class of the displays."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def note(self, text: str) -> None:
        """Print a remark."""
        self.console.print(f"note: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def start(self, lane_steps: int, trials: int, done: int) -> None:
        """Training starts: so many lane-steps of so many trials, while others are done already."""

    def advance(self, lane_steps: int) -> None:
        """So many lane-steps more are done, or fewer where a worker process died."""

    def show(self, standings: Sequence[StudyProgress]) -> None:
        """Show how far a search is, after each round."""

    def stop(self) -> None:
        """Training has ended or was interrupted."""


class ProgressLines(Progress):
    """Print a line every few seconds."""

    _last_standings = 0.0

    def start(self, lane_steps: int, trials: int, done: int) -> None:
        self._total, self._done, self._start = lane_steps, 0, time.monotonic()
        self._last_line = self._start
        self._line(_title(trials, done))

    def advance(self, lane_steps: int) -> None:
        self._done += lane_steps
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY and self._done > 0:
            self._last_line = now
            left = (now - self._start) * (self._total - self._done) / self._done
            self._line(f"{self._done / self._total:4.0%} trained, about {duration(left)} left")

    def show(self, standings: Sequence[StudyProgress]) -> None:
        now, is_last = time.monotonic(), all(each.tried == each.total for each in standings)
        if is_last or now - self._last_standings >= LINE_EVERY:
            self._last_standings = now
            for each in standings:
                if each.tried:
                    self._line(f"{each.label}: {', '.join(_words(each))}")

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class ProgressBar(Progress):
    """Draw a bar with the time left, and above it a table of the arms of a search."""

    _live: Live | None = None

    def start(self, lane_steps: int, trials: int, done: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=self.console)
        self._task = self._bar.add_task(_title(trials, done), total=max(lane_steps, 1))
        self._live = Live(self._bar, console=self.console, transient=True, refresh_per_second=8)
        self._live.start()

    def advance(self, lane_steps: int) -> None:
        self._bar.advance(self._task, lane_steps)

    def show(self, standings: Sequence[StudyProgress]) -> None:
        if self._live:
            self._live.update(Group(_table(standings), self._bar))

    def stop(self) -> None:
        if self._live:
            self._live.stop()
        self._live = None


def make_progress(*, quiet: bool) -> Progress:
    """The display that suits standard error."""
    console = Console(stderr=True)
    if quiet:
        return Progress(console)
    return ProgressBar(console) if console.is_terminal else ProgressLines(console)


def duration(seconds: float) -> str:
    """Seconds in the largest unit that suits: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _title(trials: int, done: int) -> str:
    if not trials:
        return f"Nothing to train: all {done} trials are done"
    already = f" ({done} already done)" if done else ""
    return f"Training {trials} trial{'' if trials == 1 else 's'}{already}"


def _table(standings: Sequence[StudyProgress]) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("arm", "best so far", "score", "points", "pruned", "diverged"):
        table.add_column(head, justify="left" if head in ("arm", "best so far") else "right")
    for each in standings:
        score = "" if each.score is None else f"{each.score:.4g}"
        counts = (f"{each.tried}/{each.total}", str(each.pruned), str(each.diverged))
        table.add_row(each.label, each.best or "-", score, *counts)
    return table


def _words(standing: StudyProgress) -> list[str]:
    words = [f"{standing.tried} of {standing.total} points"]
    if standing.score is not None:
        words.append(f"best {standing.best} with {standing.score:.4g}")
    words += [f"{n} {what}" for n, what in ((standing.pruned, "pruned"), (standing.diverged, "diverged")) if n]
    return words
