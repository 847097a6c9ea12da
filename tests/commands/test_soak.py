"""Thousands of trials in one command: memory, open files and the time per trial stay as they are after the first ones."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest

from tests.cli_helpers import records, started, write

TRIALS = 5000
MOST_IN_TRAINING, MOST_AT_END = 250e6, 320e6  # bytes of the parent, which imports what a report needs
GROWTH = 20e6  # bytes, from the first to the last tenth


class Sample:
    """The memory and the open files of a process and of those that it has started, at one moment."""

    def __init__(self, pid, done):
        self.done = done
        self.parent = _memory(pid), _files(pid)
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        self.others = {child: (_memory(child), _files(child)) for child in children}


def _memory(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.slow
def test_nothing_grows_in_five_thousand_trials(tmp_path):
    arms = ["none", {"name": "norm", "threshold": {"log": [0.01, 10], "points": 24}}]
    path = write(tmp_path, clip=arms, train={"epochs": 2}, seeds=200)
    folder, samples, most = tmp_path / "results" / "small" / "records", [], 0
    with started("run", path, "--results", tmp_path / "results", "--workers", "2") as process:
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.25)
            try:
                found = Sample(process.pid, len(list(folder.glob("*.parquet"))) if folder.exists() else 0)
            except (OSError, ValueError, IndexError):
                continue  # a process has just ended
            most = max(most, found.parent[0])
            samples.append(found)
        assert process.returncode == 0, process.stderr.read()
    frame = records(tmp_path / "results" / "small")
    assert len(frame) == TRIALS and set(frame["status"]) == {"finished"}
    training = [each for each in samples if 0 < each.done < samples[-1].done]
    tenth = max(1, len(training) // 10)
    first, last = training[tenth : 2 * tenth], training[-tenth:]
    assert max(each.parent[0] for each in training) < MOST_IN_TRAINING and most < MOST_AT_END
    for number in (0, 1):
        before, after = (median(each.parent[number] for each in some) for some in (first, last))
        assert after - before < (GROWTH, 3)[number]
    for child in first[0].others.keys() & last[-1].others.keys():
        before, after = first[0].others[child], last[-1].others[child]
        assert after[0] - before[0] < GROWTH and after[1] - before[1] < 3, child
    times = frame.sort_values("seed")["step_us"]
    assert median(times[-500:]) < 2 * median(times[:500])
