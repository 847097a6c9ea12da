"""A sweep that is killed goes on; several into one folder share it: in the end every point was tried once."""

import json
import os
import random
import signal
import subprocess
import time

import optuna
import pandas as pd
import pytest

from clipbench.execution.worker_pool import CHECKPOINT_SECONDS
from clipbench.search.storage import JOURNAL
from clipbench.search.study import REPEATED
from tests.cli_helpers import half_files, invoke, processes, records, saved, shell, started, until, write
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


def points(results):
    """Those of all arms; none before there are any."""
    try:
        return [point for each in ledger(results, "small")["contenders"] for point in each["points"]]
    except FileNotFoundError:
        return []


def searching(process, results):
    until(lambda: points(results) or process.poll() is not None)


def confirming(process, results):
    """Fresh seeds are trained, or about to be."""
    until(lambda: sum(point["state"] != "running" for point in points(results)) == 2 * TRIALS)


def assert_whole(results):
    """All points, each once, each trained once, and the winners on fresh seeds."""
    rows = records(results / "small")  # every trial is in one row
    asked = []
    for each in ledger(results, "small")["contenders"]:
        if each["hyperparameters"]:
            assert len({json.dumps(point["values"]) for point in each["points"]}) == len(each["points"]) == TRIALS
            assert {point["state"] for point in each["points"]} <= {"complete", "pruned"}
        confirmed = rows.loc[each["confirmed"]]
        assert list(confirmed["seed"]) == FRESH and set(confirmed["status"]) == {"finished"}
        asked += [*each["confirmed"], *(id_ for point in each["points"] for id_ in point["ids"])]
    assert set(asked) == set(rows.index), "nothing else was trained"
    assert not half_files(results)


def states(folder):
    """By Optuna's own reader: how many trials there are in each state, but for values that came a second time."""
    assert all(json.loads(line) for line in (folder / JOURNAL).read_text().splitlines())
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL)))
    trials = [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]
    trials = [trial for trial in trials if REPEATED not in trial.user_attrs]
    return {state.name: sum(trial.state == state for trial in trials) for state in {trial.state for trial in trials}}


def test_killed_while_it_searches_and_while_it_confirms_it_goes_on(tmp_path):
    path, results = write(tmp_path, **SEARCH), tmp_path / "results"
    for moment in (searching, confirming):
        with begin(path, results, "--no-mlflow") as process:
            moment(process, results)
            os.killpg(process.pid, signal.SIGKILL)
            assert "Traceback" not in process.communicate()[1]
    assert invoke("sweep", path, "--results", results, "--no-mlflow").exit_code == 0
    assert_whole(results)
    assert set(states(results / "small")) <= {"COMPLETE", "PRUNED"}
    assert sum(states(results / "small").values()) == 2 * TRIALS


def test_an_interrupted_sweep_says_how_to_continue_and_leaves_no_process(tmp_path):
    path, results = write(tmp_path, **SEARCH | {"train": {"epochs": 1000}}), tmp_path / "results"
    with begin(path, results, "--no-mlflow") as process:
        until(lambda: (results / "small" / JOURNAL).exists() and "RUNNING" in states(results / "small"))
        process.terminate()
        began = time.monotonic()
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
def test_two_into_one_folder_train_no_trial_twice_and_a_run_is_told_to_wait(tmp_path):
    path, results = write(tmp_path, **SEARCH), tmp_path / "results"
    with begin(path, results, "--no-mlflow", "--json") as first, begin(path, results, "--no-mlflow") as second:
        until(lambda: points(results))
        for each in (first, second):  # or they end before the run has planned
            each.send_signal(signal.SIGSTOP)
        told = invoke("run", path, "--results", results, "--no-mlflow")
        for each in (first, second):
            each.send_signal(signal.SIGCONT)
        assert told.exit_code == 1 and "is training into this folder" in told.stderr
        assert any(f"process {each.pid} " in told.stderr for each in (first, second))
        (document, stderr), (report, _) = first.communicate(timeout=120), second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (0, 0), stderr
    assert "Written: " in report
    assert_whole(results)
    stems = [pd.read_parquet(path)["id"] for path in saved(results / "small")]
    assert sum(map(len, stems)) == len(records(results / "small")) >= json.loads(document)["trained"]
    assert sum(states(results / "small").values()) == 2 * TRIALS


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_ten_times_at_random_it_ends_with_all_points_also_in_mlflow(tmp_path, seed):
    from tests.tracking.test_mlflow_client import Sent

    path, results, chance = write(tmp_path, **SEARCH), tmp_path / "results", random.Random(seed)
    whole = timed(path, tmp_path / "undisturbed")
    for _ in range(10):
        with begin(path, results) as process:
            try:
                process.communicate(timeout=chance.uniform(0, whole))
            except subprocess.TimeoutExpired:
                chance.choice([process.kill, lambda: os.killpg(process.pid, signal.SIGKILL)])()
                assert "Traceback" not in process.communicate()[1]
    said = shell("sweep", path, "--results", results)
    assert said.returncode == 0, said.stderr
    assert_whole(results)
    assert states(results / "small").keys() <= {"COMPLETE", "PRUNED"}
    assert sum(states(results / "small").values()) == 2 * TRIALS
    sent = Sent(f"sqlite:///{results}/mlflow.db", "small")
    assert sorted(run.data.tags["clipbench.trial"] for run in sent.children.values()) == sorted(
        records(results / "small").index
    )


def timed(path, results):
    start = time.monotonic()
    assert shell("sweep", path, "--results", results).returncode == 0
    return time.monotonic() - start


@pytest.mark.slow
def test_three_at_once_train_no_point_twice_and_send_each_trial_once(tmp_path):
    from tests.tracking.test_mlflow_client import Sent

    path, results = write(tmp_path, **SEARCH), tmp_path / "results"
    with begin(path, results) as first, begin(path, results) as second, begin(path, results) as third:
        for process in (first, second, third):
            stdout, stderr = process.communicate(timeout=300)
            assert process.returncode == 0 and "Written: " in stdout, stderr
    assert_whole(results)
    sent = Sent(f"sqlite:///{results}/mlflow.db", "small")
    trials = [run.data.tags["clipbench.trial"] for run in sent.children.values()]
    assert sorted(trials) == sorted(records(results / "small").index)
