"""What a user sees of a command that works: what is done, how much of it, and how long it will take."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from rich.console import Console

from clipbench.commands import progress
from clipbench.commands.progress import ProgressBar, ProgressLines, StudyProgress, Work, training_title
from clipbench.commands.session import Session, Settings
from clipbench.core.records import Records


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def records(*rows: tuple[str, str, float]) -> Records:
    columns = {"id": range(len(rows)), "status": [r[0] for r in rows], "arm": [r[1] for r in rows]}
    columns["val/loss"] = [r[2] for r in rows]
    return Records({name: np.array(list(values), dtype=object) for name, values in columns.items()}, {}, {})


def test_no_time_is_said_before_there_is_ground_for_it(clock: Clock) -> None:
    work = Work("Training", 1000, 10)
    work.advance(1)
    clock.now += 60  # tracing takes long, and hardly any step is done
    work.advance(1)
    assert work.seconds_left() is None
    assert work.words() == ["0 of 10 trials"]


def test_the_time_left_follows_the_speed_of_the_last_seconds(clock: Clock) -> None:
    work = Work("Training", 1000, 10)
    work.advance(0)
    clock.now += 100  # the program was compiled
    for _ in range(40):
        clock.now += 1
        work.advance(10)
    assert work.seconds_left() == pytest.approx(60, rel=0.01)
    assert work.words() == ["0 of 10 trials", "about 60 s left"]


def test_it_is_never_more_than_everything(clock: Clock) -> None:
    work = Work("Search", 100, 4)
    for _ in range(5):
        clock.now += 5
        work.advance(40)
    assert work.fraction == 1
    assert work.seconds_left() == 0
    work.advance(-400)  # workers died
    assert work.fraction == 0


def test_trials_that_diverged_and_the_best_arm_are_counted(clock: Clock) -> None:
    work = Work("Training", 100, 8, "val/loss", higher=False)
    work.add(records(("finished", "none", 0.5), ("diverged", "none", float("nan"))))
    assert work.words() == ["2 of 8 trials", "1 diverged"]
    work.add(records(("finished", "norm@1.0", 0.25), ("finished", "norm@1.0", 0.35), ("finished", "none", 0.7)))
    assert work.words() == ["5 of 8 trials", "1 diverged", "best val/loss so far: 0.3 (norm@1.0)"]


def test_without_a_terminal_there_is_a_line_every_ten_seconds_at_most(clock: Clock) -> None:
    out = io.StringIO()
    lines = ProgressLines(Console(file=out, width=200))
    lines.phase("Planning")
    lines.start(training_title(8, 2), 1000, 8, "val/loss")
    for _ in range(100):
        clock.now += 0.5
        lines.advance(10)
    lines.stop()
    said = out.getvalue().splitlines()
    assert said[0] == "Training 8 trials (2 already done)"
    assert said[1:] == [
        f"{done:3d}%: 0 of 8 trials, about {left} s left, {elapsed} s elapsed"
        for done, left, elapsed in ((20, 40, 10), (40, 30, 20), (60, 20, 30), (80, 10, 40), (100, 1, 50))
    ]
    assert "\x1b" not in out.getvalue()


def test_planning_is_told_if_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(progress, "LINE_EVERY", 0.05)
    with ProgressLines(Console(file=out, width=200)) as lines:
        lines.phase("Planning")
        time.sleep(0.5)
        lines.phase("Writing the report")
    time.sleep(0.2)
    assert out.getvalue().splitlines() == ["Planning"]


def test_a_search_says_the_best_value_of_each_arm(clock: Clock) -> None:
    out = io.StringIO()
    lines = ProgressLines(Console(file=out, width=200))
    lines.show(
        [StudyProgress("norm", "threshold=0.5", 0.912, 4, 4, 1, 2), StudyProgress("value", "", None, 0, 4, 0, 0)]
    )
    clock.now += 20
    lines.show(
        [StudyProgress("norm", "threshold=0.5", 0.912, 3, 4, 1, 2), StudyProgress("value", "", None, 0, 4, 0, 0)]
    )
    assert out.getvalue().splitlines()[-1] == "norm: 3 of 4 points, best threshold=0.5 with 0.912, 1 pruned, 2 diverged"


def test_a_terminal_shows_the_phase_the_part_that_is_done_and_the_arms_of_a_search() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, _environ={})
    with ProgressBar(console) as bar:
        bar.phase("Planning")
        bar.start("Search, round 1 of 2", 100, 4)
        bar.advance(50)
        bar.add(records(("finished", "none", 0.5)))
        bar.rename("Search, round 2 of 2")
        bar.advance(0)
        bar.show([StudyProgress("norm", "threshold=0.5", 0.912, 3, 4, 1, 2)])
        bar.note("a remark")
        bar._live.refresh()  # type: ignore[union-attr]
    shown = out.getvalue()
    for text in (
        "Planning",
        "Search, round 2 of 2",
        "50%",
        "1 of 4 trials",
        "threshold=0.5",
        "0.912",
        "note: a remark",
    ):
        assert text in shown, text
    assert bar._live is None


@pytest.mark.parametrize(
    ("trials", "done", "phase", "title"),
    (
        (1, 0, "", "Training 1 trial"),
        (0, 9, "", "Nothing to train: all 9 trials are done"),
        (3, 0, "Confirmation", "Confirmation: training 3 trials"),
    ),
)
def test_the_title_says_what_is_trained(trials: int, done: int, phase: str, title: str) -> None:
    assert training_title(trials, done, phase) == title


def test_the_display_ends_with_the_session() -> None:
    bar = ProgressBar(Console(file=io.StringIO(), force_terminal=True, _environ={}))
    with Session(Settings(mirror=False), bar) as session:
        session.progress.phase("Writing the report")
        assert bar._live
    assert bar._live is None
