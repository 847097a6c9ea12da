"""The process beside training: it sends what appears, and whatever happens to it, training goes on."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from clipbench.store.folder import Store
from clipbench.tracking.invocation import Invocation
from clipbench.tracking.mirror import Mirror
from clipbench.tracking.sender import BATCH
from clipbench.tracking.uri import default_uri
from tests.fake_records import chunk, trial
from tests.sending import push
from tests.tracking.test_mlflow_client import Sent

INVOCATION = Invocation("clipbench run x.yaml", version="0.1")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "my store")


@pytest.fixture(scope="module")
def results(tmp_path_factory, with_database):
    return with_database(tmp_path_factory.mktemp("results"))


def start(store, uri, results, name="x"):
    return Mirror(store.folder, name, uri, results / "mlartifacts", INVOCATION)


def until(condition, seconds=40):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def fill(store, seeds, stem):
    store.save(chunk([trial(seed) for seed in seeds]), stem)


def test_what_appears_while_training_goes_on_is_sent(store, results):
    uri = default_uri(results)
    mirror = start(store, uri, results, "beside")
    fill(store, range(3), "a")
    until(lambda: mirror.state.pushed == 3)
    fill(store, range(3, 6), "b")
    store.write_text("report.md", "# Report")
    outcome = mirror.finish()
    assert (outcome.pushed, outcome.pending, outcome.problem) == (6, 0, None)
    sent = Sent(uri, "beside")
    (parent,) = sent.parents
    assert len(sent.children) == 6 and parent.info.status == "FINISHED"
    assert {item.path for item in sent.client.list_artifacts(parent.info.run_id)} >= {"records", "report.md"}


@pytest.mark.slow
def test_starting_costs_training_nothing(store, results):
    start_time = time.perf_counter()
    mirror = start(store, default_uri(results), results, "cost")
    seconds = time.perf_counter() - start_time
    assert mirror.finish().problem is None
    assert seconds < 0.15, "50 ms on a quiet laptop"


def test_an_interrupted_run_says_so(store, results):
    fill(store, [0], "a")
    outcome = start(store, default_uri(results), results, "interrupted").finish(status="KILLED")
    assert outcome.pushed == 1
    assert Sent(default_uri(results), "interrupted").parents[0].info.status == "KILLED"


def test_killed_midway_it_is_told_and_the_rest_is_sent_later(store, results):
    uri, count = default_uri(results), 10 * BATCH
    store.save(chunk([trial(seed) for seed in range(count)], steps=60), "a")
    mirror = start(store, uri, results, "killed")
    until(lambda: mirror.state.pushed >= 5)
    os.kill(mirror._process.pid, signal.SIGKILL)
    outcome = mirror.finish()
    assert outcome.pushed < count and "`clipbench push killed` sends the rest" in outcome.problem
    rest = push(store.folder, "killed", uri, results / "mlartifacts", INVOCATION)
    assert count - outcome.pushed - BATCH <= rest.trials <= count - outcome.pushed
    sent = Sent(uri, "killed")
    assert len(sent.children) == count
    assert {run.info.status for run in sent.children.values()} == {"FINISHED"}
    counts = {len(run.data.metrics) for run in sent.children.values()}
    assert len(counts) == 1, "every run is whole"
    assert sorted(run.info.status for run in sent.parents) == ["FINISHED", "KILLED"]


def test_a_server_that_is_away_is_said_once_and_stops_nothing(store, results):
    mirror = start(store, "http://me:hunter2@127.0.0.1:9", results)
    fill(store, range(3), "a")
    until(lambda: mirror.state.problem)
    outcome = mirror.finish()
    assert outcome.pending == 3 and outcome.pushed == 0
    assert "could not connect" in outcome.problem and "`clipbench push x`" in outcome.problem
    assert "hunter2" not in outcome.problem


@pytest.fixture
def hanging():
    """A server that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_hangs_is_noticed(store, results, hanging, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mirror = start(store, hanging, results)
    until(lambda: mirror.state.problem)
    assert "no response in time" in mirror.finish().problem


def test_finish_gives_up_when_nothing_moves(store, results, hanging):
    fill(store, [0], "a")
    mirror = start(store, hanging, results)
    outcome = mirror.finish(patience=1.0)
    assert "no answer for 1 s" in outcome.problem
    assert mirror._process.poll() is not None, "nobody is left behind"


def test_it_ends_with_a_parent_that_is_killed(store, hanging, tmp_path):
    script = f"""
import time
from pathlib import Path
from clipbench.tracking.mirror import Mirror
from clipbench.tracking.invocation import Invocation
root = Path({str(tmp_path)!r})
mirror = Mirror(Path({str(store.folder)!r}), "x", {hanging!r}, root, Invocation("run"))
print(mirror._process.pid, flush=True)
time.sleep(100)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not _is_running(pid))


def _is_running(pid):
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_no_password_is_among_its_arguments_or_in_its_files(store, results, tmp_path):
    fill(store, [0], "a")
    mirror = start(store, "http://me:hunter2@127.0.0.1:9", results)
    with open(f"/proc/{mirror._process.pid}/cmdline") as file:
        assert "hunter2" not in file.read()
    mirror.finish()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_a_fault_of_its_own_is_said_in_a_line(store, results):
    fill(store, [0], "a")
    broken = chunk([trial(1)], seconds=np.array(["not a number"]))
    store.save(broken, "b")
    outcome = start(store, default_uri(results), results, "fault").finish()
    assert "The MLflow mirror failed (" in outcome.problem and "`clipbench push fault`" in outcome.problem
