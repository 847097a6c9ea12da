"""A sweep in MLflow, on a real SQLite store: every trial with what was searched, and the search itself."""

import json

import pytest

from tests.cli_helpers import invoke, records, write
from tests.sweep_helpers import ledger
from tests.tracking.test_mlflow_client import Sent

SEARCH = {
    "data": {"name": "digits", "limit": 200},
    "train": {"epochs": 8, "batch_size": 32},
    "clip": ["none", {"name": "norm", "threshold": {"log": [0.01, 100], "points": 3}}],
    "seeds": 2,
    "sweep": {
        "trials": 12,
        "seeds": 2,
        "batch": 6,
        "confirm_seeds": 2,
        "search": {"optimizer.lr": {"log": [0.001, 1.0]}},
    },
}


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory, with_database):
    root = tmp_path_factory.mktemp("mirrored")
    path, results = write(root, **SEARCH), with_database(root / "results")
    said = invoke("sweep", path, "--results", results, "--workers", "1")
    assert said.exit_code == 0, said.stderr
    return results, Sent(f"sqlite:///{results}/mlflow.db", "small")


def test_each_trial_is_a_child_with_what_was_searched_and_whose_point_it_is(mirrored):
    results, sent = mirrored
    assert set(sent.children) == set(records(results / "small").index)
    searched = [each for each in ledger(results, "small")["contenders"] if each["points"]]
    assert searched
    for each in searched:
        for point in each["points"]:
            for run in (sent.children[id_] for id_ in point["ids"]):
                assert run.info.status == "FINISHED"
                tags, params = run.data.tags, run.data.params
                assert (tags["clipbench.study"], tags["clipbench.point"]) == (each["study"], str(point["number"]))
                assert {path: float(params[path]) for path in point["values"]} == point["values"]
                assert tags["clipbench.status"] == ("pruned" if point["state"] == "pruned" else "finished")
    assert any(point["state"] == "pruned" for each in searched for point in each["points"])


def test_the_parent_carries_the_search_and_a_pulled_folder_reports_it_and_goes_on(mirrored, tmp_path):
    results, sent = mirrored
    (parent,) = sent.parents
    there = {item.path for item in sent.client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "sweep.json", "sweep.journal", "search.csv"} <= there
    uri = f"sqlite:///{results}/mlflow.db"
    assert invoke("pull", "small", "--results", tmp_path, "--tracking-uri", uri).exit_code == 0
    reports = [invoke("report", "small", "--results", folder, "--json") for folder in (results, tmp_path)]
    assert reports[0].stdout == reports[1].stdout and "searched" in reports[0].stdout
    again = invoke("sweep", tmp_path / "small" / "experiment.yaml", "--results", tmp_path, "--no-mlflow", "--json")
    assert json.loads(again.stdout)["trained"] == 0
