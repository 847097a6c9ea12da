"""kill -9 at any moment: the next run trains what is missing, once, and ends with the numbers of an undisturbed run."""

import json
import os
import random
import signal
import time

import pytest

from clipbench.store import checkpoint_files
from tests.cli_helpers import assert_same, half_files, invoke, processes, records, saved, started, train, until, write

# Some seconds of training in many chunks, on the path that vectorises.
LONGER = {
    "model": {"name": "mlp", "hidden": [[4], [6], [8], [10]]},
    "train": {"epochs": 60, "batch_size": 32},
    "seeds": 2,
}
TRIALS = 4 * 4 * 2
# Minutes of training, in chunks that take longer than most of the times between two kills.
MINUTES = {**LONGER, "train": {"epochs": 2000, "batch_size": 32}, "seeds": 16}
TRIALS_OF_MINUTES = 4 * 4 * 16


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    train(write(root, **LONGER), root / "results")
    return root / "results" / "small"


def kill_often(path, results, times, *options):
    """Start it and kill it at a random moment of its start or of its training; how many files were saved each time."""
    moments, counts = random.Random(11), []
    for _ in range(times):
        with started("run", path, "--results", results, "--workers", "2", *options) as process:
            if moments.random() < 0.7:
                process.stderr.readline()  # training begins
            time.sleep(moments.uniform(0, 2))
            process.kill()
            process.wait()
        counts.append(len(saved(results / "small")))
    return counts


@pytest.mark.slow
def test_after_three_kills_every_trial_is_there_once_and_the_same(undisturbed, tmp_path):
    path, results = write(tmp_path, **LONGER), tmp_path / "results"
    before = kill_often(path, results, 3, "--no-mlflow")
    assert before == sorted(before), "what is saved stays"
    train(path, results, "--workers", "2")
    assert len(records(results / "small")) == TRIALS
    assert not half_files(results)
    assert_same(results / "small", undisturbed)


@pytest.mark.slow
@pytest.mark.native  # others round by the number of trials that are trained at once
def test_killed_right_after_a_chunk_is_saved_only_the_rest_is_trained(undisturbed, tmp_path):
    path, results = write(tmp_path, **LONGER), tmp_path / "results"
    with started("run", path, "--results", results, "--no-mlflow", "--workers", "2") as process:
        while not saved(results / "small"):
            time.sleep(0.002)
        process.kill()
        process.wait()
    there = len(records(results / "small"))
    assert 0 < there < TRIALS
    assert json.loads(train(path, results, "--json").stdout)["trained"] == TRIALS - there
    assert_same(results / "small", undisturbed)


@pytest.mark.slow
def test_after_a_hundred_kills_every_trial_is_once_in_the_store_and_once_in_mlflow(tmp_path):
    from tests.tracking.test_mlflow_client import Sent

    path, results = write(tmp_path, **MINUTES), tmp_path / "results"
    counts = kill_often(path, results, 100)
    assert counts == sorted(counts), "what is saved stays"
    assert counts[0] < counts[-1] < TRIALS_OF_MINUTES, "it got on, and the last kill came before the end"
    said = invoke("run", path, "--results", results)
    assert said.exit_code == 0, said.stderr
    assert not half_files(results)
    train(path, tmp_path / "undisturbed")
    assert_same(results / "small", tmp_path / "undisturbed" / "small")
    sent = Sent(f"sqlite:///{results}/mlflow.db", "small")
    trials = [run.data.tags["clipbench.trial"] for run in sent.children.values()]
    assert sorted(trials) == sorted(records(results / "small").index)


# One chunk of some seconds
LONG_CHUNK = {"model": {"name": "mlp", "hidden": [8]}, "train": {"epochs": 1500, "batch_size": 32}, "seeds": 2}


def begun_steps(results):
    """The steps of each checkpoint."""
    files = (results / "small" / "checkpoints").glob("*.checkpoint")
    return [checkpoint_files.read(file)[0]["step"] for file in files]


INTERRUPTIONS = [(signal.SIGINT, os.kill), (signal.SIGTERM, os.killpg), (signal.SIGHUP, os.killpg)]


@pytest.mark.parametrize("number", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_an_interruption_keeps_a_chunk_and_the_next_run_goes_on(tmp_path, number):
    """Ctrl-C and the end of a terminal send a signal to all processes, a service manager often does too."""
    path, results = write(tmp_path, **LONG_CHUNK), tmp_path / "results"
    train(path, tmp_path / "undisturbed", "--workers", "1")
    steps = []
    for sign, to in INTERRUPTIONS[:number]:
        with started("run", path, "--results", results, "--workers", "1", "--no-mlflow") as process:
            until(lambda: process.stderr.readline().startswith("Training"))
            time.sleep(0.6)
            to(process.pid, sign)
            said = process.communicate(timeout=30)[1]
            until(lambda: not processes(process.mark), seconds=10)
        assert process.returncode == 130 and "Traceback" not in said
        assert (
            "Finished trials are saved, and training that was under way can go on (1 checkpoint). To continue: " in said
        )
        steps += begun_steps(results)
    assert 0 < steps[0] < steps[1] <= steps[-1], "each command went on where the one before ended"
    train(path, results, "--workers", "1")
    assert not begun_steps(results)
    assert_same(results / "small", tmp_path / "undisturbed" / "small")


def test_what_is_done_or_damaged_is_no_chunk_to_go_on_with(tmp_path):
    folder = tmp_path / "results"
    for name, trials in {"a": ["1", "2", "2"], "b": ["3", "6"], "c": ["4", "5"], "d": ["7"]}.items():
        checkpoint_files.write(checkpoint_files.path_of(folder, name), {"about": {"trials": trials}}, b"content")
    damaged = [checkpoint_files.path_of(folder, name) for name in ("c", "d")]
    damaged[0].write_bytes(b"nothing")
    damaged[1].write_bytes(damaged[1].read_bytes()[:-1])
    notes = []
    assert list(checkpoint_files.begun(folder, {"3", "8"}, notes.append)) == [["1", "2", "2"]]
    left = {"a.checkpoint", "c.checkpoint.damaged", "d.checkpoint.damaged"}
    assert {file.name for file in (folder / "checkpoints").iterdir()} == left
    for path, note in zip(damaged, notes, strict=True):
        assert note.startswith(f"{path} is damaged (its ") and f"it was renamed to {path.name}.damaged" in note


@pytest.mark.slow
def test_a_killed_chunk_loses_a_minute_at_most(tmp_path):
    longer = {**LONG_CHUNK, "train": {"epochs": 90_000, "batch_size": 32}}
    path, results = write(tmp_path, **longer), tmp_path / "results"
    began = time.monotonic()
    with started("run", path, "--results", results, "--workers", "1", "--no-mlflow") as process:
        until(lambda: begun_steps(results), seconds=90)
        assert time.monotonic() - began < 65
        process.kill()
        process.wait()
    train(path, results, "--workers", "1")
    train(path, tmp_path / "undisturbed", "--workers", "1")
    assert_same(results / "small", tmp_path / "undisturbed" / "small")
