"""What a plan takes is known before: what cannot fit is refused with its place, and what is large is asked for."""

import os
import pty
import subprocess
import time

import pytest

from clipbench.commands import large_plan
from clipbench.core import machine_memory
from clipbench.core.machine_memory import usable_memory
from clipbench.planning import needed_memory
from tests.cli_helpers import CLIPBENCH, environment, invoke, records, saved, train, write

FEW = {"name": "digits", "limit": 100}
OWN = "from torch import nn\ndef net(inputs, outputs):\n    return nn.Linear(inputs, 10**13)\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"name": "mlp", "hidden": [10**9]}}, "model: mlp has 75,000,000,010 weights, and 4 trials of it "),
        ({"model": {"name": "mlp", "hidden": [10**6, 10**6]}}, "Choose a smaller model or smaller batches."),
        ({"train": {"epochs": 10**9}}, "train.epochs: the statistics of 4 trials of 2,000,000,000 steps take "),
        ({"train": {"steps": 10**10}}, "Train for fewer steps."),
        ({"data": {"name": "spirals", "samples": 10**13}}, "data: spirals cannot be loaded: MemoryError: Unable to "),
        ({"model": "./own.py:net"}, "model: ./own.py:net cannot be built: there is not enough memory: it asked for "),
    ],
)
@pytest.mark.parametrize("command", [("check",), ("run", "--no-mlflow")])
def test_what_cannot_fit_is_refused_at_its_place_and_nothing_is_allocated(tmp_path, command, changes, words):
    path = write(tmp_path, **changes)
    (tmp_path / "own.py").write_text(OWN)
    began = time.monotonic()
    options = ("--results", tmp_path / "results") if command[0] == "run" else ()
    said = invoke(*command, path, *options)
    assert said.exit_code == 2 and words in said.stderr and f"{path}:" in said.stderr, said.stderr
    assert not (tmp_path / "results").exists() and time.monotonic() - began < 20


def test_a_large_batch_of_few_examples_is_one_of_all(tmp_path):
    losses = []
    for size in (10**9, 100):
        path = write(tmp_path / str(size), data=FEW, train={"epochs": 2, "batch_size": size}, seeds=1)
        train(path, tmp_path / str(size) / "results")
        losses.append(records(tmp_path / str(size) / "results" / "small").sort_values("arm")["train/loss"].tolist())
    assert losses[0] == losses[1]


def test_a_report_is_made_on_a_machine_that_could_not_train_it(tmp_path, monkeypatch):
    path = write(tmp_path, seeds=2)
    train(path, tmp_path / "results")
    monkeypatch.setattr(needed_memory, "SERIES_BYTES", 10**12)
    assert invoke("run", path, "--results", tmp_path / "results", "--no-mlflow").exit_code == 2
    again = invoke("report", path, "--results", tmp_path / "results", "--seeds", "1")
    assert again.exit_code == 0, again.stderr


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    there = usable_memory()
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("1000000000\n")
    monkeypatch.setattr(machine_memory, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine_memory, "ALL_GROUPS", tmp_path)
    assert there > usable_memory() == 900_000_000
    said = invoke("check", write(tmp_path, model={"name": "mlp", "hidden": [4000, 4000]}))
    assert said.exit_code == 2 and "of memory, and there are 0.9 GB for it." in said.stderr


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_large_plan_without_a_terminal_says_what_to_type(tmp_path, monkeypatch, command):
    monkeypatch.setattr(large_plan, "MOST_TRIALS", 11)
    path = write(tmp_path)
    said = invoke(command, path, "--results", tmp_path / "results", "--no-mlflow")
    assert said.exit_code == 2 and " trials. Nothing was started. Add --yes to train it." in said.stderr
    assert said.stderr.startswith("large plan: this trains ")
    assert not (tmp_path / "results").exists()
    if command == "run":
        assert invoke(command, path, "--results", tmp_path / "results", "--no-mlflow", "--yes").exit_code == 0
        again = invoke(command, path, "--results", tmp_path / "results", "--no-mlflow")
        assert again.exit_code == 0, "only what is missing counts"


def test_hours_gigabytes_and_the_free_disk_are_asked_for(tmp_path, monkeypatch):
    assert large_plan.reasons(10, 10**6, 2, tmp_path / "none") == []
    long = large_plan.reasons(10, 10**12, 2, tmp_path)
    assert long[0] == "at least 278 hours" and "about 60,000.0 GB of results of " in long[1]
    monkeypatch.setattr(large_plan, "_free", lambda folder: 10**6)
    assert large_plan.reasons(1, 10**5, 1, tmp_path) == []
    assert large_plan.reasons(1, 10**7, 1, tmp_path) == ["about 0.6 GB of results of 0.0 GB that are free"]


@pytest.mark.parametrize(("answer", "exit_code"), [(b"n\n", 130), (b"y\n", 0)])
def test_at_a_terminal_it_asks(tmp_path, answer, exit_code):
    (tmp_path / "data.py").write_text("")
    path = write(tmp_path, clip=[{"name": "norm", "threshold": {"log": [0.1, 10], "points": 3}}], seeds=2)
    code = (
        "from clipbench.commands import large_plan; large_plan.MOST_TRIALS = 3\nfrom clipbench.cli import main; main()"
    )
    python = str(os.path.join(os.path.dirname(CLIPBENCH), "python"))
    command = [python, "-c", code, "run", str(path), "--results", str(tmp_path / "results"), "--no-mlflow"]
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment())
    os.close(follower)
    shown = b""
    while b"Go on?" not in shown:
        shown += os.read(leader, 1000)
    os.write(leader, answer)
    while process.poll() is None:
        try:
            shown += os.read(leader, 1000)
        except OSError:
            break
    assert process.wait(60) == exit_code and b"This trains 6 trials." in shown
    assert bool(saved(tmp_path / "results" / "small")) == (exit_code == 0)
    os.close(leader)
