"""Runs of a real MLflow database: all logged values, and what is said where there are none."""

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from clipbench.errors import InputError
from clipbench.logged_norms import read_norms
from clipbench.tracking.mlflow_connection import connection
from clipbench.tracking.uri import default_uri
from tests.cli_helpers import invoke, write

NORMS = np.exp(np.random.default_rng(0).normal(size=25_500))
MOST = 1000  # metrics of a request


@pytest.fixture(scope="module")
def database(tmp_path_factory, with_database):
    return default_uri(with_database(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def client(database):
    with connection(database, ""):
        yield MlflowClient(tracking_uri=database)


def log(client, values, name="grad_norm"):
    run = client.create_run("0", run_name="mine").info.run_id
    points = [Metric(name, value, 1_000_000 + step, step) for step, value in enumerate(values)]
    for first in range(0, len(points), MOST):
        client.log_batch(run, metrics=points[first : first + MOST])
    return run


def read(source, uri, *wanted):
    return read_norms(source, wanted, "results", lambda: uri)


def test_the_whole_history_of_a_metric_is_read_in_the_order_of_steps(client, database):
    run = log(client, NORMS)  # more than one page
    for source in (run, f"runs:/{run}"):
        [norms] = read(source, database)
        np.testing.assert_array_equal(norms.whole, NORMS)
    assert (norms.first, norms.last, norms.columns) == (0, len(NORMS) - 1, ("grad_norm",))
    assert norms.source.startswith("run mine of sqlite:///") and norms.notes == ()


def test_what_mlflow_stores_of_infinities_is_not_a_norm(client, database):
    [norms] = read(log(client, [1.0, float("inf"), float("nan"), float("-inf"), 2.0]), database)
    assert norms.whole.tolist() == [1.0, 2.0] and norms.nonfinite == 3


def test_a_trial_of_clipbench_has_means_and_says_where_the_steps_are(tmp_path, with_database):
    results = with_database(tmp_path / "results")
    path = write(tmp_path, clip=["none"], seeds=1, train={"epochs": 20, "batch_size": 32})
    assert invoke("run", path, "--results", results, "--workers", "1").exit_code == 0
    with connection(default_uri(results), ""):
        client = MlflowClient(tracking_uri=default_uri(results))
        runs = [run for each in client.search_experiments() for run in client.search_runs([each.experiment_id])]
    [trial] = [run for run in runs if "clipbench.trial" in run.data.tags]
    [norms] = read(trial.info.run_id, default_uri(results))
    assert norms.columns == ("step/grad_norm/pre",) and 10 < norms.steps <= 25
    assert "`--from results/NAME`" in norms.notes[0]
    steps = pd.read_parquet(results / "small/steps")["grad_norm/pre"]
    assert norms.whole.mean() == pytest.approx(steps.mean(), rel=0.01)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://127.0.0.1:1", "MLflow at http://127.0.0.1:1: could not connect. Check the id of the run, and"),
        ("sqlite:////nowhere/mlflow.db", "there is no MLflow database /nowhere/mlflow.db. Name the database or server"),
        ("", "Check the id of the run, and `--tracking-uri`."),
    ],
)
def test_a_run_that_cannot_be_read_is_said(database, uri, expected):
    with pytest.raises(InputError) as caught:
        read("0" * 32, uri or database)
    assert expected in str(caught.value)


def test_a_run_without_norms_lists_its_metrics(client, database):
    with pytest.raises(InputError, match=r"no column is called a gradient norm: loss"):
        read(log(client, [0.5], "loss"), database)
