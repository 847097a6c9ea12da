"""Where studies live: a journal beside the trials or a database; what is wrong with either is said with a way out."""

import socket
import sqlite3

import pytest

from clipbench.errors import ClipbenchError, InputError
from clipbench.search.storage import storage_at
from clipbench.store.atomic_files import lock
from tests.cli_helpers import invoke, write
from tests.sweep_helpers import bowl, study


@pytest.mark.parametrize(
    "url", ["nonsense", "", "oracel://me:hunter2@host/x", "http://host:5000", "sqlite://", "sqlite:///:memory:"]
)
def test_what_is_no_database_is_a_wrong_input_that_starts_nothing(url, tmp_path):
    with pytest.raises(InputError, match=r"--storage: .*Write `sqlite:////absolute/path/optuna.db` or") as found:
        storage_at(url)
    assert "hunter2" not in str(found.value)
    said = invoke("sweep", write(tmp_path), "--results", tmp_path / "r", "--storage", url)
    assert said.exit_code == 2 and "hunter2" not in said.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("scheme", "package"), [("postgresql+psycopg2", "psycopg2-binary"), ("mysql", "mysqlclient")])
def test_a_driver_that_is_missing_or_a_server_that_is_away_is_said_without_the_password(scheme, package, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"{scheme}://me:hunter2@127.0.0.1:{free.getsockname()[1]}/optuna"
    storage = storage_at(url)
    with pytest.raises(
        ClipbenchError, match=rf"--storage .*(pip install {package}|Check that the server runs)"
    ) as found:
        storage.open(tmp_path, pytest.fail)
    assert "hunter2" not in str(found.value) and "***@127.0.0.1" in str(found.value)


def test_a_file_that_is_no_database_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("what I had for lunch\n" * 100)
    with pytest.raises(ClipbenchError, match=r"cannot be opened: file is not a database. Check that its folder exists"):
        storage_at(f"sqlite:///{tmp_path}/notes.txt").open(tmp_path, pytest.fail)


def test_a_journal_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ClipbenchError, match=r"cannot be written .* `--results DIR`"):
        storage_at(None).open(tmp_path / "file", pytest.fail)


def test_a_database_that_is_lost_amid_a_search_says_how_to_go_on(tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    storage = storage_at(url)
    searched = study(bowl(tmp_path), storage.open(tmp_path, pytest.fail))
    with sqlite3.connect(tmp_path / "optuna.db") as database:
        database.execute("DROP TABLE trials")
    with pytest.raises(ClipbenchError, match=r"Nothing is lost: the same command continues once"), storage.connection():
        searched.ask(1)


def test_one_process_at_a_time_asks_also_from_another_folder(tmp_path):
    one, other = (storage_at(f"sqlite:///{tmp_path}/optuna.db") for _ in range(2))
    one.open(tmp_path, pytest.fail), other.open(tmp_path, pytest.fail)
    held = tmp_path / ".optuna.db.lock"
    with one.exclusive(), pytest.raises(ClipbenchError, match="taken"), lock(held, "taken"):
        pass
    with other.exclusive(), pytest.raises(ClipbenchError, match="taken"), lock(held, "taken"):
        pass
    with lock(held, "taken"):
        pass
