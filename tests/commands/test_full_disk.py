"""A full disk: it is said in one sentence, nothing that was saved is lost, and with space again the rest is trained."""

import json
import random

import pytest

from tests.cli_helpers import assert_same, half_files, invoke, records, saved, train, write
from tests.small_disk import small_disk

SEVERAL_CHUNKS = {
    "model": {"name": "mlp", "hidden": [[4], [6], [8]]},
    "train": {"epochs": 20, "batch_size": 32},
    "seeds": 2,
}
TRIALS = 3 * 4 * 2


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    train(write(root, **SEVERAL_CHUNKS), root / "results")
    return root / "results" / "small"


def is_said(said):
    assert "Traceback" not in said.stderr and "cannot be written (No space left on device)" in said.stderr
    assert "Free some disk space and run the same command again: saved trials are kept." in said.stderr


def test_results_that_do_not_fit_are_trained_when_there_is_space(undisturbed, tmp_path):
    path, disk = write(tmp_path / "experiment", **SEVERAL_CHUNKS), tmp_path / "disk"
    with small_disk(disk, 4) as resize:
        there = 0
        for size in (4, 20, 60, 120, 160, 240):
            resize(size)
            said = invoke("run", path, "--results", disk / "results", "--no-mlflow", "--workers", "1")
            if said.exit_code == 0:
                break
            is_said(said)
            assert said.exit_code == 1 and len(saved(disk / "results" / "small")) >= there
            there = len(saved(disk / "results" / "small"))
        assert there, "some chunks were saved before the disk was full"
        resize(50_000)
        assert json.loads(train(path, disk / "results", "--json").stdout)["trained"] < TRIALS
        assert len(records(disk / "results" / "small")) == TRIALS and not half_files(disk / "results")
        assert_same(disk / "results" / "small", undisturbed)


def test_a_report_that_does_not_fit_is_said_and_made_later(undisturbed, tmp_path):
    path, disk = write(tmp_path / "experiment", **SEVERAL_CHUNKS), tmp_path / "disk"
    with small_disk(disk, 50_000) as resize:
        train(path, disk / "results")
        for file in ("report.html", "report.json", "table.csv"):
            (disk / "results" / "small" / file).unlink()
        (disk / "filler").write_bytes(b"x" * 40_000_000)
        resize(40_000_000 // 1024 + 900)
        (disk / "more").write_bytes(b"")
        with pytest.raises(OSError), (disk / "more").open("wb", buffering=0) as more:
            while True:
                more.write(b"x" * 4096)
        said = invoke("report", path, "--results", disk / "results")
        is_said(said)
        assert said.exit_code == 1
        (disk / "filler").unlink()
        assert invoke("report", path, "--results", disk / "results").exit_code == 0
        assert (disk / "results" / "small" / "report.html").is_file()


@pytest.mark.slow
def test_any_size_of_the_disk_loses_nothing(undisturbed, tmp_path):
    sizes = random.Random(5)
    path, disk = write(tmp_path / "experiment", **SEVERAL_CHUNKS), tmp_path / "disk"
    for _ in range(20):
        with small_disk(disk, size := sizes.randrange(4, 400)) as resize:
            said = invoke("run", path, "--results", disk / "results", "--no-mlflow", "--workers", "2")
            if said.exit_code:
                is_said(said)
            there = len(records(disk / "results" / "small")) if saved(disk / "results" / "small") else 0
            resize(50_000)
            trained = json.loads(train(path, disk / "results", "--json").stdout)["trained"]
            assert trained == TRIALS - there, size
            assert_same(disk / "results" / "small", undisturbed)
