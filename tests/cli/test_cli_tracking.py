"""MLflow through the command line, on a real SQLite store: run, push, pull, ui, and a server that is away."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli_helpers import invoke, records, started, table, train, until, write
from tests.tracking.test_mlflow_client import Sent

AWAY = "http://me:hunter2@127.0.0.1:9"


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory, with_database):
    """A run with the default store: its file, its results folder, what it said."""
    root = tmp_path_factory.mktemp("mirrored")
    path, results = write(root), with_database(root / "the results")
    said = invoke("run", path, "--results", results)
    assert said.exit_code == 0, said.stderr
    return path, results, said


@pytest.fixture(scope="module")
def sent(mirrored):
    return Sent(store(mirrored[1]), "small")


def store(results):
    return f"sqlite:///{results}/mlflow.db"


def test_each_trial_is_a_child_with_its_options_measures_and_data(mirrored, sent):
    frame = records(mirrored[1] / "small")
    assert set(sent.children) == set(frame.index)
    for trial, run in sent.children.items():
        row = frame.loc[trial]
        assert run.data.tags["clipbench.status"] == "finished" and run.info.status == "FINISHED"
        assert run.data.params["lr"] == "0.1" and run.data.params["seed"] == str(row["seed"])
        assert run.data.params["train.epochs"] == "2" and run.data.params["arm"] == row["arm"]
        assert run.data.metrics["test/accuracy"] == row["test/accuracy"]
        assert {"val/loss", "train/loss", "grad_norm/pre_p50", "clip/fired_share"} <= set(run.data.metrics)
        assert [given.dataset.name for given in run.inputs.dataset_inputs] == ["digits"]


def test_the_parent_says_what_was_run_and_carries_the_files(mirrored, sent):
    (parent,) = sent.parents
    assert parent.info.status == "FINISHED"
    assert {"command", "content_hash", "version", "device"} <= {
        tag.removeprefix("clipbench.") for tag in parent.data.tags if tag.startswith("clipbench.")
    }
    assert {run.data.tags["mlflow.parentRunId"] for run in sent.children.values()} == {parent.info.run_id}
    there = {item.path for item in sent.client.list_artifacts(parent.info.run_id)}
    assert {"experiment.yaml", "runs.json", "records", "epochs", "steps", "figures"} <= there
    assert {"report.md", "report.html", "report.json", "table.csv", "table.tex"} <= there


def test_the_series_of_epochs_and_steps_are_there(sent):
    run = next(iter(sent.children.values()))
    history = sent.client.get_metric_history(run.info.run_id, "epoch/val/loss")
    assert [point.step for point in history][:2] == [1, 2]
    steps = sent.client.get_metric_history(run.info.run_id, "step/grad_norm/pre")
    assert [point.step for point in steps] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_second_run_and_a_push_send_nothing_again(mirrored, sent):
    path, results, _ = mirrored
    again = invoke("run", path, "--results", results, "--json")
    assert json.loads(again.stdout)["mlflow"] == {"pushed": 0, "pending": 0, "problem": None}
    pushed = invoke("push", "small", "--results", results)
    assert pushed.exit_code == 0 and pushed.stdout.startswith("small: 0 trials")
    assert len(Sent(store(results), "small").children) == len(sent.children)


def test_a_store_is_rebuilt_from_mlflow_and_gives_the_same_table(mirrored, tmp_path):
    path, results, said = mirrored
    pulled = invoke("pull", path, "--results", tmp_path, "--tracking-uri", store(results))
    assert pulled.exit_code == 0 and "12 trials" in pulled.stdout, pulled.stderr
    report = invoke("report", "small", "--results", tmp_path)
    assert report.stdout.partition("\nWritten:")[0] == said.stdout.partition("\nWritten:")[0]
    assert table(tmp_path / "small").equals(table(results / "small"))


def test_a_server_that_is_away_delays_nothing_and_push_sends_the_rest(mirrored, tmp_path):
    path = write(tmp_path, name="away", seeds=2)
    said = invoke("run", path, "--results", tmp_path / "r", "--tracking-uri", AWAY)
    assert said.exit_code == 0 and "norm@0.5" in said.stdout
    assert said.stderr.count("127.0.0.1:9") == 1, "told once"
    assert "`clipbench push away` sends the rest" in said.stderr and "hunter2" not in said.stderr + said.stdout

    refused = invoke("push", "away", "--results", tmp_path / "r", "--tracking-uri", AWAY)
    assert refused.exit_code == 1 and "hunter2" not in refused.stderr and "Traceback" not in refused.stderr
    pushed = invoke("push", "away", "--results", tmp_path / "r", "--tracking-uri", store(mirrored[1]))
    assert pushed.exit_code == 0 and pushed.stdout.startswith("away: 8 trials"), pushed.stderr
    assert len(Sent(store(mirrored[1]), "away").children) == 8
    assert not (tmp_path / "r" / "mlflow.db").exists()


def test_without_mlflow_nothing_of_it_is_written_and_push_sends_it_later(mirrored, tmp_path):
    path = write(tmp_path, name="later", seeds=1)
    train(path, tmp_path / "r")
    assert [entry.name for entry in (tmp_path / "r").iterdir()] == ["later"]
    pushed = invoke("push", path, "--results", tmp_path / "r", "--tracking-uri", store(mirrored[1]))
    assert pushed.stdout.startswith("later: 4 trials")


@pytest.mark.parametrize(("command", "code"), [("push", 2), ("pull", 1)])
def test_what_was_never_trained_cannot_be_sent_or_fetched(mirrored, tmp_path, command, code):
    said = invoke(command, "nosuch", "--results", tmp_path, "--tracking-uri", store(mirrored[1]))
    assert said.exit_code == code and "nosuch" in said.stderr and "Traceback" not in said.stderr
    assert not list(tmp_path.iterdir())


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.parametrize("named", [["small"], []], ids=["by name", "the last one"])
def test_ui_serves_the_store_and_says_where_the_runs_are(mirrored, sent, named):
    options = ["--results", mirrored[1], "--port", free_port(), "--no-browser"]
    with started("ui", *named, *options, "--workers", "1") as process:
        line = Path(f"/proc/{process.pid}/cmdline")
        until(lambda: b"mlflow\0ui" in line.read_bytes(), seconds=20)
        arguments = line.read_text().split("\0")[:-1]
        said = process.stdout.readline()
    assert f"127.0.0.1:{options[3]}/#/experiments/{sent.experiment.experiment_id}/runs?" in said
    assert arguments[1:4] == ["-m", "mlflow", "ui"] and arguments[-2:] == ["--workers", "1"]
    assert store(mirrored[1]) in arguments and options[3] in arguments
    assert f"{mirrored[1].as_uri()}/mlartifacts" in arguments


def test_ui_of_an_unknown_experiment_names_those_there_are(mirrored):
    said = invoke("ui", "smal", "--results", mirrored[1], "--no-browser")
    assert said.exit_code == 1 and "unknown experiment 'smal'. Known: small" in said.stderr


def test_the_parent_carries_the_answer_of_the_report(mirrored, sent):
    (parent,) = sent.parents
    settings = json.loads((mirrored[1] / "small" / "report.json").read_text())["settings"]
    assert parent.data.tags["clipbench.verdict"] == settings[0]["answer"]["verdict"]
    assert parent.data.tags["mlflow.note.content"] == (mirrored[1] / "small" / "report.md").read_text()
    assert parent.data.metrics["baseline/test/accuracy"] == settings[0]["rows"][0]["value"]["mean"]
    assert parent.data.params["data"] == "digits" and parent.data.params["clip"] == "none, norm, value"
    assert [given.dataset.name for given in parent.inputs.dataset_inputs] == ["digits"]
    assert sent.experiment.tags["mlflow.experiment.primaryMetric.name"] == "test/accuracy"


def test_system_metrics_without_the_library_that_measures_are_refused(tmp_path):
    """A meta path entry hides psutil from the command."""
    hide = "import importlib.util as u; find = u.find_spec; u.find_spec = lambda n, *a: n != 'psutil' and find(n, *a) or None"
    script = f"{hide}; import sys; sys.argv = ['clipbench', 'run', {str(write(tmp_path))!r}]; from clipbench.cli import main; main()"
    environment = {**os.environ, "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true"}
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 2 and "require psutil" in said.stderr and "Traceback" not in said.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_mlflow_does_not_keep_the_table_waiting(tmp_path):
    """The table is printed before a server that never answers is given up."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with started("run", write(tmp_path, seeds=1), "--results", tmp_path / "r", "--tracking-uri", uri) as process:
            began = time.monotonic()
            until(lambda: "Written:" in process.stdout.readline(), seconds=30)
            assert process.poll() is None and time.monotonic() - began < 30
