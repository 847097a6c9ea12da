"""Called within a run of the caller's own, clipbench nests its runs under it, and leaves it as it is."""

import mlflow
import pytest

import clipbench
from clipbench.tracking.active_run import active_run
from tests.scripts.helpers import write_script


@pytest.fixture
def opened(tmp_path, with_database, monkeypatch):
    """A run of the caller in a database of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with_database(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment("my own study")
    with mlflow.start_run(run_name="mine") as run:
        yield run
    mlflow.set_tracking_uri(before)


def test_runs_are_nested_under_the_active_run_which_goes_on(opened, tmp_path):
    path = write_script(tmp_path, clip=["none"], seeds=2)
    clipbench.run(path, results=tmp_path / "results", quiet=True)
    assert mlflow.active_run().info.run_id == opened.info.run_id
    mlflow.log_metric("after", 1.0)
    client = mlflow.MlflowClient()
    runs = client.search_runs([opened.info.experiment_id])
    parent = next(run for run in runs if run.data.tags.get("mlflow.parentRunId") == opened.info.run_id)
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(trials) == 2
    assert {run.data.tags["clipbench.status"] for run in trials} == {"finished"}
    mine = client.get_run(opened.info.run_id)
    assert (mine.info.status, mine.info.run_name, mine.data.metrics) == ("RUNNING", "mine", {"after": 1.0})
    assert not [tag for tag in client.get_experiment(opened.info.experiment_id).tags if tag.startswith("clipbench")]
    assert client.get_experiment_by_name("script") is None
    assert not (tmp_path / "results" / "mlflow.db").exists()


def test_a_tracking_uri_that_is_said_counts_more_than_the_active_run(opened, tmp_path):
    path = write_script(tmp_path, clip=["none"])
    uri = f"sqlite:///{tmp_path}/other.db"
    clipbench.run(path, results=tmp_path / "results", tracking_uri=uri, quiet=True)
    client = mlflow.MlflowClient(uri)
    assert client.get_experiment_by_name("script") is not None
    assert len(mlflow.MlflowClient().search_runs([opened.info.experiment_id])) == 1


def test_a_run_that_the_environment_names_is_active_too(tmp_path, monkeypatch):
    assert active_run() is None
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert (active_run().uri, active_run().id) == ("http://localhost:5000", "abc")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///tmp/mlruns")
    assert active_run() is None
