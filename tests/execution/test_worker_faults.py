"""Functions of a user's that hang, leak, print without end or leave: each fails alone, and says in what."""

import os
import signal
import time

import pytest

from clipbench.execution import local_workers, process_output
from tests.cli_helpers import invoke, records, started, until, write

MODEL = """
import ctypes
import re
import sys
import time

import torch
from torch import nn

KEPT = []


def leak():
    KEPT.append(torch.ones(10_000_000))
    time.sleep(0.02)


def talk():
    for _ in range(100):
        print("x" * 100_000)


def interrupt():
    raise KeyboardInterrupt


FAULTS = {
    "sleeps": lambda: time.sleep(1000),
    "computes": lambda: re.match("(a+)+$", "a" * 60 + "b"),  # in compiled code, which lets no other thread run
    "leaks": leak,
    "talks": talk,
    "interrupts": interrupt,
    "leaves": lambda: sys.exit(0),
    "crashes": lambda: ctypes.string_at(0),
    "nothing": lambda: None,
}


class Net(nn.Module):
    def __init__(self, inputs, outputs, how, first):
        super().__init__()
        self.head = nn.Linear(inputs, outputs)
        self.how, self.first, self.calls = how, first, 0

    def forward(self, x):
        self.calls += 1
        if self.calls > self.first and self.training:
            FAULTS[self.how]()
        return self.head(x) if float(x.detach().sum()) > -1e9 else -self.head(x)


def net(inputs, outputs, how="nothing", first=9):
    return Net(inputs, outputs, how, first)
"""
# What is wrong, and what is said of it.
WORDS = {
    "sleeps": "took longer for a step than train.timeout_per_step, in <lambda> (faulty.py:28). It hangs, or ",
    "computes": "took longer for a step than train.timeout_per_step, in <lambda> (faulty.py:29). It hangs, or ",
    "leaks": "used more than its part of the memory, 1.2 GB. Fewer workers get more each",
    "interrupts": "training fails on inputs (32, 64): KeyboardInterrupt: no message",
    "leaves": "training fails on inputs (32, 64): SystemExit: 0",
    "crashes": 'was killed by SIGSEGV, 2 times. Its last lines: File "',
}


def experiment(folder, *ways, first=9, **train):
    folder.mkdir(exist_ok=True)
    (folder / "faulty.py").write_text(MODEL)
    models = [{"name": "./faulty.py:net", "how": how, "first": first} for how in ways]
    train = {"epochs": 15, "batch_size": 32, "timeout_per_step": 3, **train}
    return write(folder, model=models, train=train, clip=["none"], seeds=1)


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """A run with a model for each fault, and one that is in order."""
    folder = tmp_path_factory.mktemp("faults")
    path = experiment(folder, *WORDS, "talks", "nothing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_workers, "memory_for_each", lambda workers: 1_200_000_000)
        said = invoke("run", path, "--results", folder / "results", "--no-mlflow", "--workers", "2")
    return said, records(folder / "results" / "small"), folder / "results" / "small"


def test_the_others_finish(tried):
    said, frame, _ = tried
    finished = frame["model.how"].isin(["talks", "nothing"])
    assert said.exit_code == 3 and "Traceback" not in said.stderr
    assert set(frame.loc[finished, "status"]) == {"finished"} and set(frame.loc[~finished, "status"]) == {"failed"}
    assert len(frame) == len(WORDS) + 2


@pytest.mark.parametrize("how", WORDS)
def test_a_fault_is_said_in_words(tried, how):
    said, frame, _ = tried
    assert frame.loc[frame["model.how"] == how, "error"].str.contains(WORDS[how], regex=False).all()
    assert (
        f"1 trial failed: {'' if how in ('interrupts', 'leaves') else 'the worker process '}{WORDS[how]}" in said.stderr
    )


def test_what_is_printed_is_in_a_file_that_stays_small(tried):
    said, _, folder = tried
    assert f"note: functions of the experiment print something: {folder}/logs/worker-" in said.stderr
    assert "xxx" not in said.stdout + said.stderr
    logs = list((folder / "logs").glob("worker-?.txt"))
    assert any("bytes of output left out" in log.read_text() for log in logs)
    assert all(log.stat().st_size <= process_output.MOST_OUTPUT for log in logs)


@pytest.mark.parametrize(
    ("how", "exit_code", "words"),
    [
        pytest.param("sleeps", 1, "took longer for a step than train.timeout_per_step", marks=pytest.mark.slow),
        ("crashes", 1, "the worker process that reads the experiment was killed by SIGSEGV"),
        ("leaves", 2, "SystemExit: 0"),
        ("interrupts", 2, "KeyboardInterrupt: no message"),
    ],
)
def test_a_fault_in_the_first_steps_starts_nothing(tmp_path, how, exit_code, words):
    path = experiment(tmp_path, how, first=0, timeout_per_step=0.1)
    began = time.monotonic()
    said = invoke("run", path, "--results", tmp_path / "results", "--no-mlflow")
    assert (said.exit_code, words in said.stderr, "Traceback" in said.stderr) == (exit_code, True, False), said.stderr
    assert not (tmp_path / "results").exists() and time.monotonic() - began < 60


def test_short_steps_do_not_add_up_to_the_limit(tmp_path):
    path = experiment(tmp_path, "nothing", timeout_per_step=1, epochs=600)
    began = time.monotonic()
    said = invoke("run", path, "--results", tmp_path / "results", "--no-mlflow", "--workers", "1")
    assert said.exit_code == 0 and time.monotonic() - began > 1.1


@pytest.mark.slow
def test_the_time_of_a_stop_does_not_count(tmp_path):
    """As after Ctrl-Z: all processes stand still for longer than a step may take."""
    path = experiment(tmp_path, "nothing", timeout_per_step=1, epochs=6000)
    with started("run", path, "--results", tmp_path / "results", "--no-mlflow", "--workers", "1") as process:
        until(lambda: process.stderr.readline().startswith("Training"))
        time.sleep(4)  # the first steps may take longer
        for _ in range(5):  # a worker may set its limit anew before it is ended
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(3.5)
            os.killpg(process.pid, signal.SIGCONT)
            time.sleep(0.5)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert set(records(tmp_path / "results" / "small")["status"]) == {"finished"}
