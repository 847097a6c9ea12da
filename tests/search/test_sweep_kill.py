"""A sweep that is killed goes on as if it had not been; several into one folder share it, and lose nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext

import optuna
import pandas as pd
import pytest

from clipbench.execution.local_workers import CHECKPOINT_SECONDS
from clipbench.search.storage import JOURNAL
from clipbench.store import checkpoint_files
from clipbench.tracking.uri import redact
from tests.cli_helpers import (
    assert_same,
    environment,
    half_files,
    invoke,
    processes,
    records,
    saved,
    shell,
    started,
    until,
    write,
)
from tests.postgresql import IS_INSTALLED, postgresql
from tests.sweep_helpers import ledger

TRIALS, SEEDS, CONFIRMED = 10, 2, 3
SEARCH = {
    "data": {"name": "digits", "limit": 200},
    "train": {"epochs": 25, "batch_size": 32},
    "clip": [
        "none",
        {"name": "norm", "threshold": {"log": [0.01, 100], "points": 3}},
        {"name": "value", "threshold": [0.1]},
    ],
    "seeds": SEEDS,
    "sweep": {"trials": TRIALS, "seeds": SEEDS, "batch": 4, "confirm_seeds": CONFIRMED},
}
FRESH = list(range(SEEDS, SEEDS + CONFIRMED))


def begin(path, results, *options):
    return started("sweep", path, "--results", results, "--workers", "1", *options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The file, the results of a sweep that ended by itself, and the seconds that it took."""
    return sweep_undisturbed(tmp_path_factory.mktemp("undisturbed"), SEARCH)


def sweep_undisturbed(root, search):
    path, results = write(root, **search), root / "results"
    start = time.monotonic()
    said = shell("sweep", path, "--results", results, "--no-mlflow", "--workers", "1")
    assert said.returncode == 0, said.stderr
    return path, results, time.monotonic() - start


def points(results):
    """Those of all arms; none before there are any."""
    try:
        return [point for each in ledger(results, "small")["contenders"] for point in each["points"]]
    except FileNotFoundError:
        return []


def assert_same_search(results, expected):
    """The same points, scores, winners and numbers, bit for bit, each trial once."""
    assert ledger(results, "small") == ledger(expected, "small")
    assert_same(results / "small", expected / "small")
    assert_whole(results)


def assert_whole(results):
    """All points, each once, each trained once, and the winners on fresh seeds."""
    rows = records(results / "small")  # every trial is in one row
    asked, count = [], ledger(results, "small")["trials"]
    for each in ledger(results, "small")["contenders"]:
        if each["hyperparameters"]:
            assert len({json.dumps(point["values"]) for point in each["points"]}) == len(each["points"]) == count
            assert {point["state"] for point in each["points"]} <= {"complete", "pruned"}
        confirmed = rows.loc[each["confirmed"]]
        assert list(confirmed["seed"]) == FRESH and set(confirmed["status"]) == {"finished"}
        asked += [*each["confirmed"], *(id_ for point in each["points"] for id_ in point["ids"])]
    assert set(asked) == set(rows.index), "nothing else was trained"
    assert sum(len(pd.read_parquet(path)["id"]) for path in saved(results / "small")) == len(rows), "none twice"
    assert states(results / "small").keys() <= {"COMPLETE", "PRUNED"}
    assert sum(states(results / "small").values()) == 2 * count
    assert not half_files(results)


def states(folder):
    """By Optuna's own reader: how many trials there are in each state."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL)))
    trials = [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]
    return {state.name: sum(trial.state == state for trial in trials) for state in {trial.state for trial in trials}}


def assert_sent_once(results):
    from tests.tracking.test_mlflow_client import Sent

    sent = Sent(f"sqlite:///{results}/mlflow.db", "small")
    trials = [run.data.tags["clipbench.trial"] for run in sent.children.values()]
    assert sorted(trials) == sorted(records(results / "small").index)


def kill_at_random(chance, whole, path, results, *options):
    """Kill a sweep: one in four times while it starts or later, else after a few more points, of whatever a round is."""
    with begin(path, results, *options) as process:
        try:
            if chance.random() < 0.25:
                process.communicate(timeout=chance.uniform(0, whole))
            else:
                wanted = points_done(results) + chance.randrange(5)
                until(lambda: process.poll() is not None or (searches(results) and points_done(results) >= wanted))
                process.communicate(timeout=chance.uniform(0, 0.3))
        except subprocess.TimeoutExpired:
            chance.choice([process.kill, lambda: os.killpg(process.pid, signal.SIGKILL)])()
            assert "Traceback" not in process.communicate()[1]


def searches(results):
    return (results / "small" / JOURNAL).exists()


def points_done(results):
    return sum(point["state"] != "running" for point in points(results))


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_it_ends_with_the_same_points_and_numbers(undisturbed, tmp_path, times):
    path, expected, whole = undisturbed
    results, chance = tmp_path / "results", random.Random(3)
    for _ in range(times):
        kill_at_random(chance, whole, path, results, "--no-mlflow")
    said = shell("sweep", path, "--results", results, "--no-mlflow")
    assert said.returncode == 0, said.stderr
    assert_same_search(results, expected)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_killed_thirty_times_it_ends_with_the_same_points_and_numbers_also_in_mlflow(tmp_path, batch):
    """Of many short rounds, so that each kill meets another one."""
    sections = {"train": {"epochs": 60, "batch_size": 16}, "sweep": SEARCH["sweep"] | {"trials": 40, "batch": batch}}
    path, expected, _ = sweep_undisturbed(tmp_path / "undisturbed", SEARCH | sections)
    results, chance, done = tmp_path / "results", random.Random(batch), []
    for _ in range(30):
        kill_at_random(chance, 3.0, path, results)
        done.append(points_done(results))
    assert len(set(done)) > 8, f"kills at many moments of the search: {done}"
    said = shell("sweep", path, "--results", results)
    assert said.returncode == 0, said.stderr
    assert_same_search(results, expected)
    assert_sent_once(results)


DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.skipif(not IS_INSTALLED, reason="no PostgreSQL"))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATABASES)
def test_with_a_database_it_is_the_same_search_also_killed_or_where_the_database_is_lost(undisturbed, tmp_path, kind):
    path, expected, whole = undisturbed
    results, chance = tmp_path / "results", random.Random(kind)
    with postgresql() if kind == "postgresql" else nullcontext(f"sqlite:///{tmp_path}/optuna.db") as url:
        for _ in range(6):
            kill_at_random(chance, 2 * whole, path, results, "--no-mlflow", "--storage", url)
        assert_same_points(path, results, url, expected)
    with postgresql() if kind == "postgresql" else nullcontext(f"sqlite:///{tmp_path}/other.db") as url:
        known = json.loads((results / "small" / "sweep.json").read_text())
        (results / "small" / "sweep.json").write_text(json.dumps(known | {"storage": redact(url)}))
        assert "that sweep.json has: they are taken from there" in assert_same_points(path, results, url, expected)


def assert_same_points(path, results, url, expected):
    said = shell("sweep", path, "--results", results, "--no-mlflow", "--workers", "1", "--storage", url)
    assert said.returncode == 0, said.stderr
    assert ledger(results, "small") | {"storage": JOURNAL} == ledger(expected, "small")
    assert_same(results / "small", expected / "small")
    return said.stderr


@pytest.mark.slow
def test_a_clock_that_is_set_back_changes_nothing(undisturbed, tmp_path):
    """Each process lives a day before the one before it, and its own clock goes back by an hour at every look."""
    path, expected, whole = undisturbed
    results = tmp_path / "results"
    code = (
        "import sys, time; days = int(sys.argv.pop(1)); now, ns = time.time, time.time_ns; looks = [0]\n"
        "def back(): looks[0] += 1; return days * 86_400 + looks[0] * 3600\n"
        "time.time = lambda: now() - back(); time.time_ns = lambda: ns() - int(back() * 1e9)\n"
        "from clipbench.cli import main; main()"
    )
    for days in range(1, 5):
        command = [sys.executable, "-c", code, str(days), "sweep", path, "--results", results, "--workers", "1"]
        try:
            said = subprocess.run([*command, "--no-mlflow"], timeout=whole / 2 if days < 4 else 100, **captured())
            assert said.returncode == 0, said.stderr
        except subprocess.TimeoutExpired:
            assert days < 4
    assert_same_search(results, expected)


def captured():
    return {"capture_output": True, "text": True, "check": False, "env": environment(), "start_new_session": True}


SIGNALS = [signal.SIGHUP, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGINT, signal.SIGTERM))]


@pytest.mark.parametrize("sent", SIGNALS)
def test_an_interrupted_sweep_says_how_to_continue_and_leaves_no_process(tmp_path, sent):
    path, results = write(tmp_path, **SEARCH | {"train": {"epochs": 1000}}), tmp_path / "results"
    with begin(path, results, "--no-mlflow") as process:
        until(lambda: (results / "small" / JOURNAL).exists() and "RUNNING" in states(results / "small"))
        began = time.monotonic()
        if sent == signal.SIGTERM:
            process.terminate()
        else:  # of a terminal, to all processes in it
            os.killpg(process.pid, sent)
        stdout, stderr = process.communicate(timeout=60)
        assert time.monotonic() - began < CHECKPOINT_SECONDS, "trials that may be pruned keep no checkpoint to wait for"
        assert process.returncode == 130 and not stdout
        until(lambda: not processes(process.mark))
    assert stderr.splitlines()[-1] == (
        "Interrupted. Finished trials are saved. "
        f"To continue: clipbench sweep {path} --results {results} --workers 1 --no-mlflow"
    )
    assert "Traceback" not in stderr


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_at_once_train_no_point_twice_and_send_each_trial_once(tmp_path, count):
    path, results = write(tmp_path, **SEARCH), tmp_path / "results"
    with ExitStack() as stack:
        started = [stack.enter_context(begin(path, results)) for _ in range(count)]
        until(lambda: points(results))
        for each in started:  # or they end before the run has planned
            each.send_signal(signal.SIGSTOP)
        told = invoke("run", path, "--results", results, "--no-mlflow")
        for each in started:
            each.send_signal(signal.SIGCONT)
        assert told.exit_code == 1 and "is training into this folder" in told.stderr
        for each in started:
            stdout, stderr = each.communicate(timeout=300)
            assert each.returncode == 0 and "Written: " in stdout, stderr
    assert_whole(results)
    assert_sent_once(results)


@pytest.mark.slow
def test_several_at_once_lose_nothing_where_some_are_killed(tmp_path):
    path, results, chance = write(tmp_path, **SEARCH), tmp_path / "results", random.Random(0)
    for _ in range(4):
        with begin(path, results, "--no-mlflow"), begin(path, results, "--no-mlflow") as second:
            kill_at_random(chance, 4.0, path, results, "--no-mlflow")
            second.kill()
    said = shell("sweep", path, "--results", results, "--no-mlflow")
    assert said.returncode == 0, said.stderr
    assert_whole(results)


@pytest.mark.slow
def test_points_that_were_under_way_go_on_where_nothing_prunes(tmp_path):
    search = SEARCH["sweep"] | {"pruner": "none", "trials": 3, "confirm_seeds": 2}
    changes = {"model": {"name": "mlp", "hidden": [8]}, "train": {"epochs": 1500, "batch_size": 32}, "sweep": search}
    path, results = write(tmp_path, **SEARCH | changes), tmp_path / "results"
    sweep = invoke("sweep", path, "--results", tmp_path / "undisturbed", "--workers", "1", "--no-mlflow")
    assert sweep.exit_code == 0, sweep.stderr
    steps = []
    for wait in (0.5, 1.0):
        with begin(path, results, "--no-mlflow") as process:
            until(lambda: process.stderr.readline().startswith("Search"))
            time.sleep(wait)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=30)[1]
        assert process.returncode == 130 and "training that was under way can go on (1 checkpoint)" in said
        files = (results / "small" / checkpoint_files.FOLDER).glob("*.checkpoint")
        steps += [checkpoint_files.read(file)[0]["step"] for file in files]
    assert 0 < steps[0] < steps[1], "the second command went on where the first one ended"
    assert shell("sweep", path, "--results", results, "--workers", "1", "--no-mlflow").returncode == 0
    assert ledger(results, "small") == ledger(tmp_path / "undisturbed", "small")
    assert_same(results / "small", tmp_path / "undisturbed" / "small")
