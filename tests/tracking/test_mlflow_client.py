"""The mirror in MLflow, on a real SQLite store and a real server."""

import os
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from clipbench.errors import ClipbenchError
from clipbench.store.folder import Store
from clipbench.tracking.download import Pulled, pull
from clipbench.tracking.invocation import Invocation
from clipbench.tracking.mlflow_client import REQUESTS, MlflowExperiment
from clipbench.tracking.mlflow_connection import connection
from clipbench.tracking.run_values import RunValues
from clipbench.tracking.sender import Sender
from clipbench.tracking.uri import default_uri
from tests.fake_records import chunk, trial
from tests.sending import push

INVOCATION = Invocation(
    "clipbench run x.yaml --tracking-uri http://me:hunter2@host",
    content_hash="c0ffee",
    git_commit="abc123",
    version="0.1",
    device="cpu",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory, with_database):
    """One embedded store for the module."""
    return with_database(tmp_path_factory.mktemp("the results"))


@pytest.fixture
def name(request):
    return f"exp {request.node.name}"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def fill(store, seeds, stem="a", **columns):
    trials = [trial(seed) for seed in seeds]
    made = chunk(trials, fingerprint=np.array(["f00d"] * len(trials)), **columns)
    store.save(made, stem)
    return [one.id for one in trials]


def send(store, name, uri, results, **options):
    return push(store.folder, name, uri, results / "mlartifacts", INVOCATION, **options)


class Sent:
    """What MLflow has of an experiment, through its own client."""

    def __init__(self, uri, name):
        with connection(uri, ""):
            self._experiment = MlflowExperiment.existing(uri, name)
        self.client = self._experiment._client
        self.experiment = self.client.get_experiment_by_name(name)
        runs = self.client.search_runs([self.experiment.experiment_id], max_results=1000)
        self.parents = [run for run in runs if "clipbench.invocation" in run.data.tags]
        self.children = {run.data.tags["clipbench.trial"]: run for run in runs if run not in self.parents}
        assert len(runs) == len(self.parents) + len(self.children), "a trial has one run"


@pytest.fixture(params=["sqlite", "server"])
def uri(request, results):
    if request.param == "sqlite":
        return default_uri(results)
    return request.getfixturevalue("server").uri


def test_a_trial_is_a_run_with_its_options_numbers_and_data(store, uri, name, results):
    first, second = fill(store, [0, 1])
    store.write_text("experiment.yaml", "name: x\n")
    store.write_text("figures/loss curve.svg", "<svg/>")
    pushed = send(store, name, uri, results)
    assert (pushed.trials, pushed.problem) == (2, None)
    sent = Sent(uri, name)
    (parent,) = sent.parents
    child = sent.children[second]
    assert child.info.status == parent.info.status == "FINISHED"
    assert child.info.run_name == "norm@1.0 seed 1"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["clipbench.status"] == "finished"
    assert child.data.params.items() >= {"seed": "1", "lr": "0.1", "train.epochs": "20"}.items()
    assert child.data.metrics["test/accuracy"] == 0.9
    assert len(sent.client.get_metric_history(child.info.run_id, "epoch/val/accuracy")) == 3
    assert len(sent.client.get_metric_history(child.info.run_id, "step/grad_norm/pre")) == 12
    used = child.inputs.dataset_inputs[0].dataset
    assert (used.name, used.digest) == ("digits", "f00d")
    assert set(sent.children) == {first, second}


def test_the_parent_run_says_which_command_it_was_and_carries_the_files(store, uri, name, results):
    fill(store, [0])
    store.write_text("experiment.yaml", "name: x\n")
    store.write_text("report.md", "# Report\n")
    store.write_text("figures/loss curve.svg", "<svg/>")
    send(store, name, uri, results)
    sent = Sent(uri, name)
    (parent,) = sent.parents
    said = {"content_hash": "c0ffee", "git_commit": "abc123", "version": "0.1", "device": "cpu"}
    assert parent.data.tags.items() >= {f"clipbench.{key}": value for key, value in said.items()}.items()
    assert "hunter2" not in str(parent.data.tags)
    files = sent._experiment.files(next(run for run in sent._experiment.runs("clipbench.invocation")))
    assert {
        "experiment.yaml",
        "report.md",
        "records/a.parquet",
        "steps/a.parquet",
        "epochs/a.parquet",
    } <= set(files)
    assert files["figures/loss curve.svg"] == 6


def test_system_metrics_are_logged_to_the_parent_run_while_it_goes_on(store, name, results, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    sender = Sender(store.folder, name, default_uri(results), results / "mlartifacts", INVOCATION)
    sender.monitor()
    time.sleep(1)
    sender.close()
    (parent,) = Sent(default_uri(results), name).parents
    assert parent.info.status == "FINISHED" and parent.data.metrics["system/cpu_utilization_percentage"] >= 0


def test_sending_again_sends_nothing_and_new_trials_alone_are_sent(store, uri, name, results):
    fill(store, [0, 1])
    send(store, name, uri, results)
    again = send(store, name, uri, results)
    assert (again.trials, again.files) == (0, 0) and len(Sent(uri, name).parents) == 1
    fill(store, [2], "b")
    assert send(store, name, uri, results).trials == 1
    sent = Sent(uri, name)
    assert len(sent.children) == 3 and len(sent.parents) == 2


def test_two_that_send_one_folder_in_turns_send_each_trial_once(store, name, results):
    first, second = (
        Sender(store.folder, name, default_uri(results), results / "mlartifacts", INVOCATION) for _ in range(2)
    )
    for number, sender in enumerate([first, second, first, first, second]):
        fill(store, [number], f"chunk{number}")
        assert sender.send() == 1
    assert len(Sent(default_uri(results), name).children) == 5


def test_a_store_is_rebuilt_from_mlflow(store, uri, results, tmp_path):
    name, yaml = "rebuilt", "name: rebuilt  # ü\n"
    fill(store, [0, 1], "a")
    store.write_text("experiment.yaml", yaml)
    store.write_text("runs.json", "[]")
    send(store, name, uri, results)
    fill(store, [2], "b")
    send(store, name, uri, results)
    copy = Store(tmp_path / "copy")
    assert pull(uri, name, copy.folder) == Pulled(3)
    assert copy.done() == store.done() and len(copy.steps()) == 36
    assert (copy.folder / "experiment.yaml").read_text() == yaml
    assert (copy.folder / "runs.json").read_text() == "[]"
    (copy.folder / "experiment.yaml").write_text("mine")
    assert pull(uri, name, copy.folder) == Pulled(0)
    assert (copy.folder / "experiment.yaml").read_text() == "mine"


def test_pull_says_which_experiments_there_are(store, name, results, tmp_path):
    fill(store, [0])
    send(store, name, default_uri(results), results)
    with pytest.raises(ClipbenchError, match=rf"unknown experiment '{name}s'\. Known: .*{name}"):
        pull(default_uri(results), f"{name}s", tmp_path / "copy")


def test_nothing_non_finite_is_sent(store, name, results):
    broken = chunk([trial(0)], **{"test/loss": [np.inf], "val/loss": [np.nan], "status": ["diverged"]})
    broken.steps["train/loss"][-3:] = [np.inf, -np.inf, np.nan]
    broken.records["diverged_step"] = np.array([12])
    store.save(broken, "a")
    send(store, name, default_uri(results), results)
    child = Sent(default_uri(results), name).children[trial(0).id]
    assert child.info.status == "FINISHED", "divergence is a result"
    assert child.data.tags["clipbench.status"] == "diverged" and child.data.metrics["diverged_step"] == 12
    assert "test/loss" not in child.data.metrics
    with sqlite3.connect(results / "mlflow.db") as database:
        query = "select count(*) from metrics where is_nan or abs(value) > 1e300"
        assert database.execute(query).fetchone() == (0,)
    database.close()


def test_a_failed_trial_that_succeeds_later_replaces_its_run(store, name, results):
    uri = default_uri(results)
    (one,) = fill(store, [0], "a", status=np.array(["failed"]), error=np.array(["out of memory"]))
    send(store, name, uri, results)
    old = Sent(uri, name).children[one]
    assert old.info.status == "FAILED" and old.data.tags["clipbench.error"] == "out of memory"
    assert send(store, name, uri, results).trials == 0
    fill(store, [0], "b")
    assert send(store, name, uri, results).trials == 1
    sent = Sent(uri, name)
    assert sent.children[one].info.status == "FINISHED"
    replaced = sent.client.get_run(old.info.run_id)
    assert replaced.info.lifecycle_stage == "deleted"
    assert replaced.data.tags["clipbench.superseded"] == sent.children[one].info.run_id


def test_a_pruned_trial_is_a_run_that_finished_until_the_whole_trial_replaces_it(store, name, results):
    uri = default_uri(results)
    (one,) = fill(store, [0], "a", status=np.array(["failed"]))
    send(store, name, uri, results)
    for stem, status in (("b", "pruned"), ("c", "finished")):
        fill(store, [0], stem, status=np.array([status]))
        assert send(store, name, uri, results).trials == 1
        run = Sent(uri, name).children[one]
        assert (run.info.status, run.data.tags["clipbench.status"]) == ("FINISHED", status)
    assert send(store, name, uri, results).trials == 0


def test_half_a_run_is_deleted_and_sent_again_but_not_that_of_somebody_else(store, name, results):
    uri = default_uri(results)
    (one,) = fill(store, [0])
    sender = Sender(store.folder, name, uri, results / "mlartifacts", INVOCATION)
    with connection(uri, ""):
        mine = {"clipbench.origin": sender._origin}
        half, other, dead = sender._experiment.send(
            [
                RunValues("half", 1, tags={"clipbench.trial": one, **mine}),
                RunValues("half", 1, tags={"clipbench.trial": "other", "clipbench.origin": "elsewhere"}),
                RunValues("dead", 1, tags={"clipbench.invocation": "1", **mine}),
            ]
        )
    assert send(store, name, uri, results).trials == 1
    sent = Sent(uri, name)
    assert sent.client.get_run(half.id).info.lifecycle_stage == "deleted"
    assert sent.children["other"].info.run_id == other.id
    assert sent.children[one].info.status == "FINISHED"
    assert sent.client.get_run(dead.id).info.status == "KILLED"


def test_only_the_trials_asked_for_are_sent(store, name, results):
    first, _ = fill(store, [0, 1])
    heard = []
    pushed = send(
        store, name, default_uri(results), results, ids={first}, on_trial=lambda sender: heard.append(sender.pushed)
    )
    assert pushed.trials == 1 and heard == [1]


def test_an_experiment_that_was_deleted_comes_back(store, name, results):
    uri = default_uri(results)
    fill(store, [0])
    send(store, name, uri, results)
    sent = Sent(uri, name)
    sent.client.delete_experiment(sent.experiment.experiment_id)
    fill(store, [1], "b")
    assert send(store, name, uri, results).trials == 1


@pytest.mark.slow
def test_two_processes_start_on_one_fresh_store_and_mlflow_says_nothing_on_our_streams(store, tmp_path):
    """MLflow would report each migration and each run, and break a file that two make tables in."""
    fill(store, [0])
    script = f"""
import sys
from pathlib import Path
from clipbench.tracking.invocation import Invocation
from tests.sending import push
from clipbench.tracking.uri import default_uri
root = Path({str(tmp_path / "fresh")!r})
push(Path({str(store.folder)!r}), sys.argv[1], default_uri(root), root / "mlartifacts", Invocation("run"))
"""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    streams["env"] = os.environ | {
        "MLFLOW_TRACKING_URI": "file:///nowhere",
        "PYTHONPATH": os.getcwd(),
    }  # the URI given is the one used
    both = [subprocess.Popen([sys.executable, "-c", script, name], **streams) for name in ("one", "two")]
    assert [process.communicate() for process in both] == [("", "")] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert {path.name for path in tmp_path.iterdir()} == {"store", "fresh"}, "nothing beside: no ./mlruns"


def test_trials_land_though_files_cannot(store, name, results, tmp_path):
    """The folder of the artifacts is a file: as good as a storage without credentials."""
    fill(store, [0])
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    uri = default_uri(results)
    pushed = push(store.folder, name, uri, blocked / "mlartifacts", INVOCATION)
    assert pushed.trials == 1 and "files could not be uploaded" in pushed.problem and "clipbench push" in pushed.problem
    with pytest.raises(ClipbenchError, match="has no Parquet files"):
        pull(uri, name, tmp_path / "copy")


def test_a_server_that_is_away_is_named_with_the_way_out_and_without_its_password(store, results, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    fill(store, [0])
    with pytest.raises(ClipbenchError, match=r"http://\*\*\*@127.0.0.1:9: could not connect.*`clipbench push x`") as it:
        send(store, "x", "http://me:hunter2@127.0.0.1:9", results)
    assert "hunter2" not in str(it.value)


def test_a_driver_that_is_missing_is_named_with_its_package(store, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # importing it fails
    fill(store, [0])
    with pytest.raises(
        ClipbenchError, match=r"\*\*\*@host/db: the driver psycopg is not .* `pip install 'psycopg\[binary"
    ) as it:
        send(store, "x", "postgresql+psycopg://me:hunter2@host/db", results)
    assert "hunter2" not in str(it.value)


@pytest.mark.slow
def test_a_server_killed_midway_gets_the_rest_when_it_is_back(store, server, name, results, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    ids = fill(store, range(12))
    with pytest.raises(ClipbenchError, match="could not connect"):
        send(store, name, server.uri, results, on_trial=lambda sender: server.kill() if sender.pushed == 5 else None)
    server.start()
    # What was under way when it was killed may have arrived.
    assert 7 - REQUESTS < send(store, name, server.uri, results).trials <= 7
    sent = Sent(server.uri, name)
    assert set(sent.children) == set(ids)
    assert {run.info.status for run in sent.children.values()} == {"FINISHED"}
    assert {run.info.status for run in sent.parents} == {"FINISHED", "KILLED"}
    assert all(run.data.metrics["test/accuracy"] > 0 for run in sent.children.values())
