"""What is pulled is checked: damaged files, paths and documents of a server are left out, and named."""

from pathlib import Path

import pytest

from clipbench.store.folder import Store
from clipbench.tracking.download import pull
from clipbench.tracking.mlflow_client import MlflowExperiment
from clipbench.tracking.mlflow_connection import connection
from clipbench.tracking.run_values import RunValues
from clipbench.tracking.uri import default_uri
from tests.cli_helpers import invoke
from tests.fake_records import chunk, trial
from tests.sending import push
from tests.tracking.test_mlflow_client import INVOCATION


@pytest.fixture
def results(tmp_path, with_database):
    return with_database(tmp_path / "results")


@pytest.fixture
def store(results):
    made = Store(results / "x")
    for number, stem in enumerate("abc"):
        made.save(chunk([trial(number)]), stem)
    made.write_text("experiment.yaml", "name: x\n")
    return made


def send(store, results):
    return push(store.folder, "x", default_uri(results), results / "mlartifacts", INVOCATION)


def fetch(results, folder):
    return pull(default_uri(results), "x", folder)


def artifact(results, path):
    (found,) = (results / "mlartifacts").glob(f"*/artifacts/{path}")
    return found


def spoil(path):
    """Change a byte in a page of a table."""
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("path", ["records/b.parquet", "epochs/b.parquet", "steps/b.parquet"])
@pytest.mark.parametrize("damage", [spoil, lambda path: path.write_bytes(path.read_bytes()[:-9])], ids=["byte", "cut"])
def test_a_file_that_is_damaged_in_mlflow_is_left_out_and_named(store, results, tmp_path, path, damage):
    send(store, results)
    damage(artifact(results, path))
    pulled = fetch(results, tmp_path / "copy")
    assert pulled.trials == 2 and f"left out of what MLflow has: {path} is damaged" in pulled.notes[0]
    copy = Store(tmp_path / "copy")
    assert copy.done() == {trial(0).id, trial(2).id} and not copy.notes
    assert {each.stem for each in (tmp_path / "copy").glob("*/[a-z]*")} == {"a", "c"}


@pytest.mark.parametrize(
    ("document", "text", "reason"),
    [
        ("experiment.yaml", "name: ../../y", "name: a name must consist of"),
        ("experiment.yaml", "name: y", "is of an experiment called y"),
        ("experiment.yaml", "a: [", "experiment.yaml"),
        ("sweep.json", "{}", "sweep.json"),
    ],
)
def test_a_document_that_cannot_be_right_is_left_out(store, results, tmp_path, document, text, reason):
    store.write_text(document, "name: x")
    send(store, results)
    artifact(results, document).write_text(text)
    pulled = fetch(results, tmp_path / "copy")
    assert pulled.trials == 3 and reason in pulled.notes[0] and len(pulled.notes) == 1
    assert not (tmp_path / "copy" / document).exists()


def test_no_path_of_a_foreign_server_leads_out_of_the_folder(store, results, tmp_path):
    uri = default_uri(results)
    send(store, results)
    with connection(uri, ""):
        tags = {"clipbench.invocation": "../../evil", "clipbench.store.files": "../../evil", "clipbench.trial": "../x"}
        (run,) = MlflowExperiment.existing(uri, "x").send([RunValues("../../evil", 1, tags=tags)])
        client = MlflowExperiment.existing(uri, "x")._client
        folder = Path(client.get_run(run.id).info.artifact_uri.removeprefix("file://"))
    for path in (
        "records/..parquet",
        "records/.evil.parquet",
        "evil.sh",
        ".lock",
        "figures/evil.svg",
        "a/../report.md",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("evil")
    pulled = fetch(results, tmp_path / "inner" / "copy")
    assert pulled.trials == 3
    written = {path.name for path in tmp_path.rglob("*") if "results" not in path.parts[len(tmp_path.parts) :]}
    assert written <= {"inner", "copy", "records", "epochs", "steps", "experiment.yaml", ".lock", ".columns.lock"} | {
        f"{stem}.parquet" for stem in ("a", "b", "c", "+columns")
    }


def test_push_names_what_is_damaged_as_a_report_does_and_sends_the_rest(store, results):
    spoil(store.folder / "steps" / "c.parquet")
    (store.folder / "records" / "b.parquet").write_text("no table")
    said = invoke("push", "x", "--results", results)
    assert said.exit_code == 0 and said.stdout.startswith("x: 1 trials"), said.stderr
    for path in ("records/b.parquet", "steps/c.parquet"):
        assert said.stderr.count(f"{store.folder / path} is damaged") == 1
    sent = {path.name for path in (results / "mlartifacts").glob("*/artifacts/records/*")}
    assert sent == {"+columns.parquet", "a.parquet"} or sent == {"a.parquet"}


def test_a_results_folder_that_was_moved_gets_its_files_where_it_is_now(store, results, tmp_path):
    send(store, results)
    moved = results.rename(tmp_path / "moved")
    Store(moved / "x").save(chunk([trial(7)]), "d")
    assert invoke("push", "x", "--results", moved).exit_code == 0
    assert not results.exists() and list(moved.glob("mlartifacts/*/artifacts/records/d.parquet"))
