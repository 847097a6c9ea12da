"""What is written into the tables of MLflow's database is what its client would have sent."""

import json
import os
import signal
import sqlite3
import subprocess
import sys

import mlflow.store.db.utils as mlflow_schema
import numpy as np
import pytest

from clipbench.store.folder import Store
from clipbench.tracking.invocation import Invocation
from clipbench.tracking.mlflow_client import MlflowExperiment
from clipbench.tracking.mlflow_database import SCHEMAS, DatabaseExperiment
from clipbench.tracking.sender import BATCH
from clipbench.tracking.uri import default_uri
from tests.fake_records import chunk, trial
from tests.postgresql import IS_INSTALLED, postgresql
from tests.sending import push
from tests.tracking.test_mlflow_client import Sent
from tests.tracking.test_report_to_run import setting

INVOCATION = Invocation("clipbench run x.yaml", "c0ffee", "abc123", "0.1", "cpu")
ANOTHER_TIME = {"clipbench.invocation", "mlflow.parentRunId", "clipbench.superseded", "mlflow.artifact.location"}


@pytest.fixture
def store(tmp_path):
    """Trials of every status, with series longer than what is sent and values that are not finite."""
    made = Store(tmp_path / "store")
    kinds = {"status": np.array(["finished", "diverged", "failed"]), "error": np.array([None, None, "out of memory"])}
    broken = chunk([trial(seed) for seed in range(3)], 70, 200, fingerprint=np.array(["f00d"] * 3), **kinds)
    broken.steps["train/loss"][-3:] = [np.inf, -np.inf, np.nan]
    broken.steps["clip/fired"] = np.zeros(600)
    made.save(broken, "a")
    made.write_text("experiment.yaml", "name: x\n")
    made.write_text("figures/loss curve.svg", "<svg/>")
    made.write_text("report.md", "# Report\n")
    made.write_text("report.json", json.dumps({"settings": [setting()]}))
    return made


def set_schema(results, version):
    with sqlite3.connect(results / "mlflow.db") as database:
        database.execute("update alembic_version set version_num = ?", (version,))
    database.close()


def everything(sent):
    """All that MLflow has of an experiment, without ids that differ from one time to the next."""
    return [described(sent, run) for run in (*sent.parents, *(sent.children[id_] for id_ in sorted(sent.children)))]


def described(sent, run):
    is_parent, info = "clipbench.invocation" in run.data.tags, run.info
    series = {
        name: sorted((point.step, point.value, not is_parent and point.timestamp) for point in history)
        for name in run.data.metrics
        if (history := sent.client.get_metric_history(info.run_id, name))
    }
    latest = {
        point.key: (point.value, point.step, not is_parent and point.timestamp) for point in run.data._metric_objs
    }
    inputs = [
        (used.dataset.to_dictionary(), [(tag.key, tag.value) for tag in used.tags])
        for used in run.inputs.dataset_inputs
    ]
    artifacts = sorted(
        (item.path, item.file_size)
        for folder in (None, "figures", "records", "epochs", "steps")
        for item in sent.client.list_artifacts(info.run_id, folder)
    )
    return {
        "info": (None if is_parent else info.run_name, info.status, info.lifecycle_stage, info.user_id),
        "times": None if is_parent else (info.start_time, info.end_time),
        "ended": info.end_time is not None and info.end_time >= info.start_time,
        "tags": {
            k: v for k, v in run.data.tags.items() if k not in ANOTHER_TIME and (k != "mlflow.runName" or not is_parent)
        },
        "params": run.data.params,
        "series": series,
        "latest": latest,
        "inputs": inputs,
        "artifacts": artifacts,
        "address": info.artifact_uri.count(info.run_id),
    }


def test_the_database_the_client_and_a_server_get_the_same(store, tmp_path, with_database, server):
    names, uris = ("database", "client"), {}
    for name in names:
        results = with_database(tmp_path / name)
        if name == "client":
            hidden = DatabaseExperiment.find
            DatabaseExperiment.find = classmethod(lambda *_: None)
        try:
            push(store.folder, "x", default_uri(results), results / "mlartifacts", INVOCATION)
        finally:
            if name == "client":
                DatabaseExperiment.find = hidden
        uris[name] = default_uri(results)
    push(store.folder, "x", server.uri, tmp_path, INVOCATION)
    found = {name: everything(Sent(uri, "x")) for name, uri in {**uris, "server": server.uri}.items()}
    assert found["database"] == found["client"] == found["server"]
    assert len(found["client"]) == 4 and all(run["series"] for run in found["client"][1:])
    assert found["database"][0]["artifacts"] and found["database"][1]["inputs"]


@pytest.mark.slow
@pytest.mark.skipif(not IS_INSTALLED, reason="requires PostgreSQL and psycopg2")
def test_postgresql_gets_the_same_as_sqlite(store, tmp_path, with_database):
    results = with_database(tmp_path / "results")
    with postgresql() as uri:
        for one in (uri, default_uri(results)):
            push(store.folder, "x", one, results / "mlartifacts", INVOCATION)
        assert isinstance(DatabaseExperiment.find(uri, "x"), DatabaseExperiment)
        assert everything(Sent(uri, "x")) == everything(Sent(default_uri(results), "x"))
        store.save(chunk([trial(seed) for seed in range(3, 40)]), "b")
        assert push(store.folder, "x", uri, results / "mlartifacts", INVOCATION).trials == 37
        assert push(store.folder, "x", uri, results / "mlartifacts", INVOCATION).trials == 0


def test_the_schema_of_the_installed_mlflow_is_known():
    """If not, compare the tables with those of MLflow's models, run the test above, and add the version."""
    assert mlflow_schema._get_latest_schema_revision() in SCHEMAS


def test_tables_of_another_version_are_left_to_the_client(store, tmp_path, with_database):
    """MLflow's client refuses a database of another version itself, and nothing is written into it."""
    results = with_database(tmp_path / "results")
    push(store.folder, "x", default_uri(results), results / "mlartifacts", INVOCATION)
    (version,) = SCHEMAS
    assert isinstance(DatabaseExperiment.find(default_uri(results), "x"), DatabaseExperiment)
    set_schema(results, "another")
    assert DatabaseExperiment.find(default_uri(results), "x") is None
    set_schema(results, version)
    assert DatabaseExperiment.find(default_uri(results), "unknown") is None
    assert DatabaseExperiment.find(default_uri(tmp_path / "nowhere"), "x") is None
    assert DatabaseExperiment.find("http://127.0.0.1:9", "x") is None


def test_the_client_sends_all_where_the_tables_are_not_known(store, tmp_path, with_database, monkeypatch):
    results = with_database(tmp_path / "results")
    monkeypatch.setattr("clipbench.tracking.mlflow_database.SCHEMAS", frozenset({"another"}))
    used = []
    monkeypatch.setattr(
        MlflowExperiment, "_send", lambda self, run, send=MlflowExperiment._send: used.append(run) or send(self, run)
    )
    assert push(store.folder, "x", default_uri(results), results / "mlartifacts", INVOCATION).trials == 3
    assert len(used) == 4 and len(Sent(default_uri(results), "x").children) == 3


def test_a_kill_amid_a_transaction_leaves_nothing_half(tmp_path, with_database):
    store, results, count = Store(tmp_path / "store"), with_database(tmp_path / "results"), 3 * BATCH
    store.save(chunk([trial(seed) for seed in range(count)]), "a")
    script = f"""
import os, signal
from pathlib import Path
import clipbench.tracking.mlflow_database as database
from clipbench.tracking.invocation import Invocation
from tests.sending import push
from clipbench.tracking.uri import default_uri
write, calls = database.DatabaseExperiment._write_inputs, []
def die_in_the_third(*arguments):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)
database.DatabaseExperiment._write_inputs = die_in_the_third
root = Path({str(results)!r})
push(Path({str(store.folder)!r}), "x", default_uri(root), root / "mlartifacts", Invocation("run"))
"""
    assert subprocess.run([sys.executable, "-c", script], env=os.environ).returncode == -signal.SIGKILL
    uri = default_uri(results)
    assert len(Sent(uri, "x").children) == BATCH
    assert push(store.folder, "x", uri, results / "mlartifacts", INVOCATION).trials == count - BATCH
    sent = Sent(uri, "x")
    assert len(sent.children) == count and {len(run.data.metrics) for run in sent.children.values()} == {6}
