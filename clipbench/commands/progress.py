"""The progress of a command: a live line in a terminal, plain lines without control codes elsewhere."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from clipbench.commands.interrupts import uninterrupted
from clipbench.core.records import Records
from clipbench.errors import without_control

LINE_EVERY = 10.0  # seconds between two plain lines
# The time left is said when there is ground for it: the first steps of a program take much longer than the rest.
FIRST_SECONDS, FIRST_FRACTION = 3.0, 0.05
WINDOW_SECONDS = 30.0  # the speed is that of the last seconds


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


@dataclass
class Work:
    """What a phase has to do, and what is done of it."""

    title: str
    total: int = 0  # lane-steps; 0 where nobody knows
    trials: int = 0
    measure: str = ""  # by which the best arm is chosen
    higher: bool = True
    begun: float = field(default_factory=lambda: time.monotonic())
    done: int = field(default=0, init=False)
    finished: int = field(default=0, init=False)  # trials
    diverged: int = field(default=0, init=False)
    _scores: dict[str, list[float]] = field(default_factory=dict, init=False)  # of the finished trials of each arm
    _samples: deque[tuple[float, int]] = field(default_factory=deque, init=False)  # times and lane-steps done by then

    @property
    def fraction(self) -> float:
        """The part that is done, at most 1: trials that are pruned or retrained may count twice."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total else 0.0

    def advance(self, lane_steps: int) -> None:
        now = time.monotonic()
        self.done += lane_steps
        self._samples.append((now, self.done))
        while now - self._samples[0][0] > WINDOW_SECONDS:
            self._samples.popleft()

    def add(self, records: Records) -> None:
        """Count trials that have ended."""
        table = records.records
        self.finished += len(table["id"])
        for status, arm, score in zip(
            table["status"], table["arm"], table.get(self.measure, [None] * len(table["id"])), strict=True
        ):
            self.diverged += status == "diverged"
            if status == "finished" and score is not None:
                self._scores.setdefault(arm, []).append(float(score))

    def seconds_left(self) -> float | None:
        """The time until the end at the speed of the last seconds; None without ground for it."""
        now = time.monotonic()
        if not self._samples or self.fraction < FIRST_FRACTION or now - self.begun < FIRST_SECONDS:
            return None
        since, before = self._samples[0]
        if self.done <= before:
            return None
        return max(self.total - self.done, 0) * (now - since) / (self.done - before)

    def best(self) -> str:
        """The arm with the best mean so far, in words; empty if there is only one arm."""
        means = {arm: statistics.fmean(scores) for arm, scores in self._scores.items()}
        if len(means) < 2:
            return ""
        arm = (max if self.higher else min)(means, key=means.__getitem__)
        return f"best {self.measure} so far: {means[arm]:.4g} ({arm})"

    def words(self) -> list[str]:
        words = [f"{self.finished} of {self.trials} trials"] if self.trials else []
        if (left := self.seconds_left()) is not None:
            words.append(f"about {duration(left)} left")
        return words + [word for word in (f"{self.diverged} diverged" * bool(self.diverged), self.best()) if word]


class Progress:
    """Print notes and nothing else; the base class of the displays. Its end ends the display."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.work = Work("")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def note(self, text: str) -> None:
        """Print a remark."""
        self.console.print(without_control(f"note: {text}"), style="yellow", soft_wrap=True)

    def phase(self, title: str) -> None:
        """Work begins of which nobody knows how long it takes."""
        self._begin(Work(title))

    def start(self, title: str, lane_steps: int, trials: int, measure: str = "", higher: bool = True) -> None:
        """Work begins: so many lane-steps of so many trials."""
        self._begin(Work(title, max(lane_steps, 1), trials, measure, higher))

    def rename(self, title: str) -> None:
        """The same work goes on under another title."""
        self.work.title = title

    def advance(self, lane_steps: int) -> None:
        """So many lane-steps more are done, or fewer where a worker process died."""
        self.work.advance(lane_steps)
        self._update()

    def add(self, records: Records) -> None:
        """Trials have ended."""
        self.work.add(records)
        self._update()

    def show(self, standings: Sequence[StudyProgress]) -> None:
        """Show how far a search is, after each round."""

    def stop(self) -> None:
        """The work has ended or was interrupted."""

    def _begin(self, work: Work) -> None:
        self.work = work

    def _update(self) -> None:
        """Show what has changed."""


class ProgressLines(Progress):
    """Print a line when training begins and every few seconds; of other phases only if they take as long."""

    _last_standings = 0.0
    _last_line = 0.0
    _timer: threading.Timer | None = None

    def show(self, standings: Sequence[StudyProgress]) -> None:
        now, is_last = time.monotonic(), all(each.tried == each.total for each in standings)
        if is_last or now - self._last_standings >= LINE_EVERY:
            self._last_standings = now
            for each in standings:
                if each.tried:
                    self._line(f"{each.label}: {', '.join(_words(each))}")

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _begin(self, work: Work) -> None:
        super()._begin(work)
        self.stop()
        if work.total:
            self._line(work.title)
        else:
            self._timer = threading.Timer(LINE_EVERY, self._line, [work.title])
            self._timer.daemon = True
            self._timer.start()

    def _update(self) -> None:
        now, work = time.monotonic(), self.work
        if now - self._last_line >= LINE_EVERY:
            elapsed = f"{duration(now - work.begun)} elapsed"
            self._line(f"{work.fraction:4.0%}: {', '.join([*work.words(), elapsed])}")

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self.console.print(without_control(text), soft_wrap=True)


class ProgressBar(Progress):
    """Draw a line with a bar and the time, and above it a table of the arms of a search."""

    _live: Live | None = None

    def show(self, standings: Sequence[StudyProgress]) -> None:
        if self._live:
            self._live.update(Group(_table(standings), self._bar))

    def stop(self) -> None:
        with uninterrupted():
            if self._live:
                self._live.stop()
            self._live = None

    def _begin(self, work: Work) -> None:
        super()._begin(work)
        columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
        if work.total:
            columns += [BarColumn(bar_width=24), TaskProgressColumn()]
        words = TextColumn("{task.fields[words]}", markup=False)
        self._bar = RichProgress(*columns, TimeElapsedColumn(), words, console=self.console)
        self._task = self._bar.add_task(work.title, total=1.0 if work.total else None, words="")
        if self._live:
            self._live.update(self._bar, refresh=True)
        else:
            with uninterrupted():
                self._live = Live(self._bar, console=self.console, transient=True, refresh_per_second=8)
                self._live.start(refresh=True)
        self._update()

    def _update(self) -> None:
        words, work = without_control(", ".join(self.work.words())), self.work
        self._bar.update(self._task, description=work.title, completed=work.fraction, words=words)


def make_progress(*, quiet: bool) -> Progress:
    """The display that suits standard error."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)  # names of a user's are no commands
    if quiet:
        return Progress(console)
    return ProgressBar(console) if console.is_terminal else ProgressLines(console)


def training_title(trials: int, done: int, phase: str = "") -> str:
    """What is trained, after the name of the phase if there are several."""
    if not trials:
        title = f"Nothing to train: all {done} trials are done"
    else:
        already = f" ({done} already done)" if done else ""
        title = f"Training {trials} trial{'' if trials == 1 else 's'}{already}"
    return f"{phase}: {title[0].lower()}{title[1:]}" if phase else title


def duration(seconds: float) -> str:
    """Seconds in the largest unit that suits: 40 s, 3 min, 2.5 h."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(standings: Sequence[StudyProgress]) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("arm", "best so far", "score", "points", "pruned", "diverged"):
        table.add_column(head, justify="left" if head in ("arm", "best so far") else "right")
    for each in standings:
        score = "" if each.score is None else f"{each.score:.4g}"
        counts = (f"{each.tried}/{each.total}", str(each.pruned), str(each.diverged))
        table.add_row(without_control(each.label), without_control(each.best or "-"), score, *counts)
    return table


def _words(standing: StudyProgress) -> list[str]:
    words = [f"{standing.tried} of {standing.total} points"]
    if standing.score is not None:
        words.append(f"best {standing.best} with {standing.score:.4g}")
    words += [f"{n} {what}" for n, what in ((standing.pruned, "pruned"), (standing.diverged, "diverged")) if n]
    return words
