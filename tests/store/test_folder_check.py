"""A results folder that cannot be written, or has links to elsewhere, is refused before anything is trained."""

import os
import shutil
import subprocess

import pytest

from tests.cli_helpers import CLIPBENCH, environment, invoke, train, write
from tests.thinning import one_of

# Root may write anywhere, unless it gives that right away.
WITHOUT_RIGHTS = [] if os.getuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    path = write(root, seeds=1)
    train(path, root / "results")
    return path, root / "results"


@pytest.fixture
def results(trained, tmp_path):
    made = shutil.copytree(trained[1], tmp_path / "results")
    yield made
    for folder in (made, *made.rglob("*")):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o755)


def plain(*arguments):
    command = [*WITHOUT_RIGHTS, CLIPBENCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(), check=False)


@pytest.mark.skipif(not os.getuid() and not shutil.which("setpriv"), reason="root may write anywhere")
@pytest.mark.parametrize("place", ["small", "small/records"])
@pytest.mark.parametrize("command", one_of(2, ["run", "report"]))
def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(trained, results, command, place):
    (results / place).chmod(0o555)
    given = trained[0] if command == "run" else "small"
    said = plain(command, given, "--results", results, "--seeds", "2")
    assert said.returncode == 1 and "Training" not in said.stderr
    assert said.stderr.splitlines()[-1].startswith(f"{results / place}: cannot be written (it is read-only")
    assert "Traceback" not in said.stderr and not list(results.rglob("*.tmp"))


@pytest.mark.skipif(not os.getuid() and not shutil.which("setpriv"), reason="root may write anywhere")
def test_what_only_reads_needs_no_right_to_write(results):
    (results / "small").chmod(0o555)
    shutil.rmtree(results / "small" / ".subjects", ignore_errors=True)
    said = plain("export", results / "small", "--strategy", "norm")
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("name", [".", "records", "figures", ".lock", "report.html", "sweep.journal"])
def test_no_link_out_of_the_results_is_followed(trained, results, tmp_path, name):
    link, outside = results / "small" / name, tmp_path / "outside"
    if link.exists():
        link.rename(outside)
    else:
        outside.write_text("keep")
    link = results / "small" if name == "." else link
    link.symlink_to(outside)
    before = {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()}
    for command in (["run", trained[0], "--no-mlflow"], ["report", "small"], ["push", "small"]):
        said = invoke(*command, "--results", results)
        assert said.exit_code == 2 and "is a link to" in said.stderr and "outside of" in said.stderr
    assert {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()} == before


@pytest.mark.parametrize("name", ["mlflow.db", "mlflow.db-journal", "mlartifacts"])
def test_no_link_of_the_database_is_followed(results, tmp_path, name):
    (tmp_path / "outside").mkdir()
    (results / name).symlink_to(tmp_path / "outside")
    said = invoke("push", "small", "--results", results)
    assert said.exit_code == 1 and f"{name}: is a link to" in said.stderr and not list((tmp_path / "outside").iterdir())


def test_the_results_folder_itself_may_be_a_link(trained, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    train(trained[0], tmp_path / "results")
    assert (tmp_path / "disk" / "small" / "report.html").exists()
