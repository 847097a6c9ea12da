"""No experiment can have a name that clipbench, or a file system, uses for something else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipbench.core.experiment_name import NAME, name_problem, near_name
from tests.cli_helpers import invoke, write


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("mlflow.db", "mlflow-db"),
        ("MLflow.db-journal", "MLflow-db-journal"),
        ("mlflow.db-wal", "mlflow-db-wal"),
        ("mlflow.db-shm", "mlflow-db-shm"),
        ("mlflow.db.damaged", "mlflow-db-damaged"),
        ("mlartifacts", "mlartifacts-1"),
        ("report.html", "report-html"),
        ("Report.md", "Report-md"),
        ("con", "con-1"),
        ("NUL.txt", "NUL-txt"),
        ("lpt1", "lpt1-1"),
        ("study.yaml", "study-yaml"),
        ("study.", "study"),
        ("study ", "study-"),
        (".study", "study"),
        ("../../study", "study"),
        ("a/b", "a-b"),
        ("ü" * 200, "experiment"),
        ("a" * 256, "a" * 100),
    ],
)
def test_names_that_mean_something_else_are_refused_and_a_near_one_is_proposed(name, near):
    assert name_problem(name) and near_name(name) == near and not name_problem(near)


@pytest.mark.parametrize("name", ["study", "table.csv", "sweep.journal", "mlflow.dbx", "console", "a.b_c-1", "report"])
def test_other_names_are_kept(name):
    assert not name_problem(name) and near_name(name) == name


@given(st.text())
def test_whatever_a_file_is_called_there_is_a_valid_name(text):
    name = near_name(text)
    assert re.fullmatch(NAME, name) and not name_problem(name)


@pytest.mark.slow
def test_all_that_clipbench_writes_beside_experiments_is_reserved(tmp_path, with_database):
    results = with_database(tmp_path / "results")
    for number, name in enumerate(("one", "two")):
        if number:
            (results / "mlflow.db").write_text("damaged")
            (results / "mlflow.db-journal").touch()
        assert invoke("run", write(tmp_path, name=name, seeds=1), "--results", results).exit_code == 0
    assert invoke("report", "one", "two", "--results", results).exit_code == 0
    written = {path.name for path in results.iterdir()} - {"one", "two"}
    assert written >= {"mlflow.db", "mlflow.db.damaged", "mlflow.db.damaged-journal", "mlartifacts", "report.html"}
    assert [name for name in written if not name_problem(name)] == []


def test_a_file_named_like_the_database_makes_an_experiment_of_another_name(tmp_path):
    said = invoke("check", write(tmp_path, "mlflow.db.yaml", name=None), "--no-data")
    assert said.exit_code == 0 and "mlflow-db" in said.stdout


def test_a_name_that_differs_by_case_alone_is_refused_with_its_place(tmp_path):
    (tmp_path / "r" / "Small").mkdir(parents=True)
    path = write(tmp_path)
    said = invoke("run", path, "--results", tmp_path / "r", "--no-mlflow")
    assert said.exit_code == 2 and f"{path}:1:7: name" in said.stderr and "Try Small to add to it" in said.stderr


@pytest.mark.parametrize("name", ["..", ".", "../..", "mlflow.db", "a b"])
@pytest.mark.parametrize("command", ["push", "pull", "ui"])
def test_no_command_takes_such_a_name(tmp_path, command, name):
    said = invoke(command, name, "--results", tmp_path / "r", *["--no-browser"] * (command == "ui"))
    assert said.exit_code == 2 and said.stderr.startswith(f"{name}: ") and not list(tmp_path.iterdir())
