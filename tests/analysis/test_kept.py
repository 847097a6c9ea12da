"""Kept subjects: a report plans nothing anew while everything stays as it was, and is never of an outdated plan."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from clipbench.analysis import subject_cache
from clipbench.analysis.subject import subject_of
from clipbench.analysis.subject_cache import Request
from clipbench.planning import source_files
from clipbench.planning.build import prepare
from clipbench.store.folder import Store
from tests.cli_helpers import environment, invoke, train, write

OWN = """
from helper_of_kept import WIDTH
from torch import nn

def net(inputs, outputs, width=WIDTH):
    return nn.Sequential(nn.Linear(inputs, width), nn.Linear(width, outputs))
"""
CLAIMS = [
    {"says": "clipping helps", "expect": "norm@0.5 > none", "margin": 0.01},
    {"says": "always", "expect": "always(mlp.norm = none)", "metric": "test/loss"},
    {"says": "more so with decay", "expect": "(norm - none)[train.l2=0.01] > (norm - none)[train.l2=0]"},
]
# The command in a process of its own, that tells when it ends what it took.
TELLING = """
import sys
from clipbench.cli import app

if __name__ == "__main__":
    try:
        app()
    except SystemExit as end:
        heavy = [name for name in ("torch", "mlflow", "multiprocessing.forkserver") if name in sys.modules]
        sys.exit(f"code {end.code}, imported {heavy}")
"""


def table_of(folder, weight=1.0):
    rows = "\n".join(f"{number * weight},{-number},{number % 2}" for number in range(60))
    (folder / "table.csv").write_text(f"a,b,y\n{rows}\n")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """An experiment on a table of one's own, with a model of one's own that imports a module of one's own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "helper_of_kept", raising=False)
    (tmp_path / "helper_of_kept.py").write_text("WIDTH = 4\n")
    (tmp_path / "own.py").write_text(OWN)
    table_of(tmp_path)
    path = write(
        tmp_path, data={"name": "csv", "path": "table.csv"}, model=[{"name": "mlp", "hidden": [4]}, "./own.py:net"]
    )
    (tmp_path / "mine.py").unlink()
    return path


def planned(path, sets=(), seeds=None):
    """Plan, and keep what it came to."""
    plan = prepare(str(path), sets, seeds)
    store = Store(path.parent / "results")
    subject_cache.keep(store, Request.of(path, sets, seeds), plan, subject_of(plan))
    return store, plan


def found(store, path, sets=(), seeds=None):
    return subject_cache.find(store, Request.of(path, sets, seeds))


def test_what_is_kept_is_found_whole(tmp_path):
    path = write(
        tmp_path,
        claims=CLAIMS,
        clip=["none", {"name": "norm", "threshold": [0.5, 1.0]}],
        train={"epochs": 1, "l2": [0, 0.01]},
        report={"margin": 0.005, "metric": "val/accuracy"},
        seeds=[3, 1, 4],
    )
    store, plan = planned(path)
    assert found(store, path) == subject_of(plan)
    assert found(store, path).options.claims[2][1].left.minus.strategy == "none"


def test_other_options_are_other_requests(mine):
    store, _ = planned(mine, ("train.epochs=1",), 2)
    assert found(store, mine, ("train.epochs=1",), 2)
    assert found(store, mine) is None
    assert found(store, mine, ("train.epochs=1",)) is None
    assert found(store, mine, ("train.epochs=2",), 2) is None


@pytest.mark.parametrize("name", ["small.yaml", "table.csv", "own.py", "helper_of_kept.py"])
def test_a_file_that_changed_makes_another_plan(mine, name):
    store, _ = planned(mine)
    assert found(store, mine)
    file = mine.parent / name
    before, stat = file.read_text(), file.stat()
    file.write_text(f"{before[:-2]}{chr(ord(before[-2]) ^ 1)}\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same length, and dated back
    assert found(store, mine) is None
    file.write_text(before)
    assert found(store, mine)
    file.unlink()
    if file != mine:
        assert found(store, mine) is None


def test_another_clipbench_or_another_library_makes_another_plan(mine, monkeypatch):
    store, _ = planned(mine)
    with monkeypatch.context() as patch:
        patch.setattr("clipbench.store.run_history.PACKAGES", ("clipbench",))
        assert found(store, mine) is None
    with monkeypatch.context() as patch:
        copy = shutil.copytree(source_files.CLIPBENCH, mine.parent / "copy")
        patch.setattr(source_files, "CLIPBENCH", copy)
        assert found(store, mine), "the same code elsewhere is the same"
        with (copy / "core" / "trial.py").open("a") as file:
            file.write("\n")
        assert found(store, mine) is None
    assert found(store, mine)


def test_data_that_read_what_they_like_are_never_kept(tmp_path):
    store, plan = planned(write(tmp_path, data="./mine.py:noisy_data"))
    assert plan.sources is None and not list(store.folder.rglob("*.json"))


def test_what_was_written_while_planning_is_not_kept(mine):
    plan = prepare(str(mine))
    written = (mine.parent / "table.csv").stat().st_mtime_ns
    assert source_files.sources(plan.experiment, written + 1)
    assert source_files.sources(plan.experiment, written) is None


def test_a_folder_of_files_is_as_new_as_each_of_them(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "a").write_text("1")
    before = source_files.digests([str(parts)])
    (parts / "b").write_text("")
    after = source_files.digests([str(parts)])
    assert before != after
    (parts / "b").rename(parts / "c")
    assert source_files.digests([str(parts)]) not in (before, after)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"sources": {}}', '{"sources": {}, "subject": {"name": 1}}'])
def test_a_damaged_file_is_as_good_as_none(mine, text):
    store, _ = planned(mine)
    (file,) = (store.folder / subject_cache.FOLDER).glob("*.json")
    file.write_text(text)
    assert found(store, mine) is None


def test_only_the_newest_are_kept(mine):
    store, plan = planned(mine)
    for seeds in range(1, subject_cache.MOST + 3):
        subject_cache.keep(store, replace(Request.of(mine), seeds=seeds), plan, subject_of(plan))
    assert len(list((store.folder / subject_cache.FOLDER).iterdir())) == subject_cache.MOST
    assert found(store, mine) is None and found(store, mine, (), subject_cache.MOST + 2)


def test_a_report_after_a_run_imports_no_torch_and_starts_no_worker(tmp_path):
    path, results = write(tmp_path, claims=CLAIMS[:1]), tmp_path / "results"
    assert told(tmp_path, "run", path, "--no-mlflow", "-q") == "code 0, imported ['multiprocessing.forkserver']"
    written = json.loads((results / "small" / "report.json").read_text())
    for asked in (path, "small"):
        (results / "small" / "report.json").unlink()
        assert told(tmp_path, "report", asked) == "code 0, imported []"
        assert json.loads((results / "small" / "report.json").read_text()) == written


def told(folder, *arguments):
    """What the command took, the last thing it says."""
    (folder / "telling.py").write_text(TELLING)
    command = [sys.executable, folder / "telling.py", *arguments, "--results", folder / "results"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    return done.stderr.splitlines()[-1]


def test_a_report_of_an_edited_experiment_is_of_the_edited_one(tmp_path):
    path, results = write(tmp_path), tmp_path / "results"
    train(path, results)
    assert len(list((results / "small" / subject_cache.FOLDER).iterdir())) == 2
    path.write_text(path.read_text().replace("seeds: 3", "seeds: 4"))
    for _ in range(2):  # planned, then read
        said = invoke("report", path, "--results", results)
        assert said.exit_code == 0 and "4 trials not trained yet" in said.stdout, said.stdout
    assert len(list((results / "small" / subject_cache.FOLDER).iterdir())) == 3


def test_mistakes_are_said_whatever_was_kept(tmp_path):
    path, results = write(tmp_path), tmp_path / "results"
    train(path, results)
    path.write_text(path.read_text().replace("digits", "digit"))
    said = invoke("report", path, "--results", results)
    assert said.exit_code == 2 and "Did you mean" in said.stderr
    path.write_text("name: [")
    assert invoke("report", path, "--results", results).exit_code == 2
