"""The SQLite file of MLflow is made whole, and one that is damaged is set aside and filled anew from the store."""

import os
import shutil
import sqlite3
from contextlib import closing

import pytest

from clipbench.errors import ClipbenchError
from clipbench.tracking.sqlite_database import prepare
from clipbench.tracking.uri import default_uri
from tests.cli_helpers import invoke, shell, train, write
from tests.small_disk import small_disk
from tests.tracking.test_mlflow_client import Sent


def scribble(path):
    with path.open("r+b") as file:
        for page in range(20, path.stat().st_size // 4096, 7):
            file.seek(page * 4096)
            file.write(b"\xff" * 512)


def interrupt_its_making(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("delete from experiments")
        database.execute("drop table alembic_version")
        database.commit()


DAMAGE = {
    "the file is empty": lambda path: path.write_bytes(b""),
    "the file is not an SQLite database": lambda path: path.write_text("a page of somebody's thesis"),
    "the database is damaged": scribble,
    "the database is damaged ": lambda path: os.truncate(path, 700_000),
    "MLflow's tables in it are incomplete": interrupt_its_making,
}


@pytest.fixture
def path(tmp_path, with_database):
    return with_database(tmp_path / "results") / "mlflow.db"


@pytest.fixture
def copied(path):
    """Make the tables as MLflow does, in less time."""
    whole = path.with_name("whole")
    shutil.copy(path, whole)
    return lambda uri: shutil.copy(whole, uri.removeprefix("sqlite:///"))


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_damaged_database_is_set_aside_and_made_anew(path, copied, problem):
    for _ in range(2):
        DAMAGE[problem](path)
        path.with_name("mlflow.db-shm").write_text("of the damaged one")
        damaged = path.read_bytes()
        note = prepare(path, copied, may_rename=True)
        assert f"{path}: {problem.strip()}" in note and note.count("\n") == 0
        assert prepare(path, copied, may_rename=True) == ""
    assert path.with_name("mlflow.db.2.damaged").read_bytes() == damaged
    names = {each.name for each in path.parent.iterdir()} - {".mlflow.db.lock", "whole", "mlflow.db"}
    assert names == {f"mlflow.db{number}.damaged{end}" for number in ("", ".2") for end in ("", "-shm")}


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_database_of_somebody_else_is_never_renamed(path, copied, problem):
    DAMAGE[problem](path)
    before = path.read_bytes()
    with pytest.raises(ClipbenchError, match=f"{path}: {problem.strip()}.*--tracking-uri"):
        prepare(path, copied, may_rename=False)
    assert path.read_bytes() == before and not list(path.parent.glob("*.damaged"))


def test_a_database_that_another_process_uses_is_not_damaged(path, copied):
    with closing(sqlite3.connect(path)) as other:
        other.execute("begin immediate")
        assert prepare(path, copied, may_rename=True) == ""


def test_what_a_killed_process_was_making_is_removed(path, copied):
    path.unlink()
    path.with_name(".mlflow.db.0.tmp-journal").touch()
    path.with_name("mlflow.db-wal").write_text("of a database that was deleted")
    assert prepare(path, copied, may_rename=True) == ""
    assert {"mlflow.db", "mlflow.db.damaged-wal"} <= {each.name for each in path.parent.iterdir()}
    assert not list(path.parent.glob("*.tmp*")) and not path.with_name("mlflow.db-wal").exists()


def test_push_names_a_damaged_database_and_fills_a_new_one(tmp_path, path):
    results = path.parent
    assert invoke("run", write(tmp_path, seeds=1), "--results", results, "-q").exit_code == 0
    scribble(path)
    said = invoke("push", "small", "--results", results)
    assert said.exit_code == 0 and "small: 4 trials" in said.stdout
    assert said.stderr.count("the database is damaged. It was renamed to mlflow.db.damaged") == 1
    assert len(Sent(default_uri(results), "small").children) == 4


@pytest.mark.slow
def test_a_full_disk_stops_no_training_and_push_sends_all_when_there_is_space(tmp_path):
    path = write(tmp_path, seeds=1)
    with small_disk(tmp_path / "results", 1024) as resize:
        results = tmp_path / "results"
        said = shell("run", path, "--results", results)
        assert said.returncode == 0 and "Written:" in said.stdout
        assert said.stderr.count("the disk is full. Nothing is lost: `clipbench push small`") == 1
        again = shell("push", "small", "--results", results)
        assert again.returncode == 1 and "the disk is full" in again.stderr and "Traceback" not in again.stderr
        assert not [each for each in results.rglob("*") if "mlflow.db" in each.name and each.suffix != ".lock"]
        resize(20_000)
        said = shell("push", "small", "--results", results)
        assert said.returncode == 0 and said.stdout.startswith("small: 4 trials"), said.stderr
        assert len(Sent(default_uri(results), "small").children) == 4


@pytest.mark.slow
def test_a_disk_that_fills_up_later_leaves_a_whole_database(tmp_path, with_database):
    path, results = write(tmp_path, seeds=3), tmp_path / "results"
    train(path, results)
    disk = tmp_path / "disk"
    with small_disk(disk, 3 * 1024):
        uri = default_uri(with_database(disk))
        with (disk / "filler").open("wb") as filler:
            filler.write(b"0" * (3 * 2**20 - (disk / "mlflow.db").stat().st_size - 100_000))
        full = shell("push", "small", "--results", results, "--tracking-uri", uri)
        assert full.returncode == 1 and "the disk is full" in full.stderr
        (disk / "filler").unlink()
        said = shell("push", "small", "--results", results, "--tracking-uri", uri)
        assert said.returncode == 0 and len(Sent(uri, "small").children) == 12, said.stderr
