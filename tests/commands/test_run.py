"""From an experiment to its tables: everything is trained once, and nobody's numbers depend on how."""

import json
import math

import pandas as pd
import pytest

from tests.cli_helpers import (
    ARMS,
    assert_same,
    experiment,
    invoke,
    records,
    saved,
    series,
    table,
    train,
    write,
)

CONTRACT = [
    "experiment.yaml",
    "runs.json",
    "engine.json",
    "records",
    "epochs",
    "steps",
    "weights",
    "checkpoints",
    "sweep.journal",
    "report.md",
    "report.html",
    "report.json",
    "table.csv",
    "table.tex",
    "figures",
]
DATA = """
import time
import torch

def data(how="global"):
    generator = torch.Generator().manual_seed(time.time_ns() % 2**40 if how == "clock" else int(how != "global"))
    x = torch.randn(100, 4) if how == "global" else torch.randn(100, 4, generator=generator)
    return x, (x.sum(1) > 0).long()
"""
OPTIONS = ("data.limit", "data.split.val", "model.hidden", "optimizer.momentum", "train.epochs", "train.batch_size")
MEASURES = (
    "test/loss",
    "test/accuracy",
    "val/loss",
    "val/accuracy",
    "train/loss",
    "train/accuracy",
    "best_val/loss",
    "best_val/accuracy",
    "generalization_gap",
    "epochs_to_target",
    "diverged",
    "diverged_step",
    "diverged_cause",
    "clip/fired_share",
    "grad_norm/pre_p50",
    "seconds",
    "step_us",
    "parameters",
    "weight_sparsity",
)
OF_EPOCHS = ("train/loss", "val/loss", "val/accuracy", "weight_norm", "grad/vanishing")
OF_STEPS = ("train/loss", "grad_norm/pre", "grad_norm/post", "grad_max/pre", "grad/nonfinite")
OF_CLIPPING = ("clip/fired", "clip/fraction", "clip/cosine")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run that several tests look at: its file, its results folder, what it said."""
    root = tmp_path_factory.mktemp("finished")
    path = write(root)
    return path, root / "results", train(path, root / "results")


def printed(result):
    """The tables, without the sentence about files."""
    return result.stdout.partition("\nWritten:")[0]


# What a run leaves


def test_a_run_ends_in_a_table_and_says_where_it_is_written(finished):
    _, results, said = finished
    assert all(arm in said.stdout for arm in ("none", "norm@0.5", "norm@1.0", "value@0.01"))
    assert f"Written: {results}/small/ report.md" in said.stdout
    assert "Training 12 trials" in said.stderr and "Training 12" not in said.stdout


def test_every_trial_has_one_row_with_its_options_and_measures(finished):
    frame = pd.read_parquet(finished[1] / "small" / "records")
    first = ["id", "status", "arm", "strategy", "threshold", "seed", "data", "model", "optimizer", "lr"]
    assert {*first, *OPTIONS, *MEASURES} <= set(frame.columns)
    assert len(frame) == 12 and frame["id"].is_unique and set(frame["status"]) == {"finished"}
    assert set(frame["arm"]) == {"none", "norm@0.5", "norm@1.0", "value@0.01"} and set(frame["seed"]) == {0, 1, 2}
    assert frame[["test/loss", "val/loss", "train/loss", "clip/fired_share", "step_us"]].notna().all(axis=None)


def test_epochs_and_steps_have_a_row_each_counted_from_one(finished):
    folder = finished[1] / "small"
    epochs, steps = pd.read_parquet(folder / "epochs"), pd.read_parquet(folder / "steps")
    assert set(OF_EPOCHS) | {f"grad_norm/pre_p{p}" for p in (50, 90, 99)} <= set(epochs.columns)
    assert {*OF_STEPS, *OF_CLIPPING} <= set(steps.columns)
    assert epochs.groupby("id")["epoch"].apply(list).tolist() == [[1, 2]] * 12
    assert steps.groupby("id")["step"].apply(list).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]] * 12  # 100 examples by 32


def test_tables_have_no_nesting(finished):
    for name in ("records", "epochs", "steps"):
        frame = pd.read_parquet(finished[1] / "small" / name)
        values = {type(value) for column in frame for value in frame[column].head(3)}
        assert not values & {list, dict, tuple}


def test_the_store_is_the_files_of_the_contract_and_nothing_else(finished):
    names = {path.name for path in (finished[1] / "small").iterdir() if path.name[0] != "."}
    assert {"experiment.yaml", "runs.json", "records", "epochs", "steps", "report.md", "report.json"} <= names
    assert names <= {*CONTRACT}
    assert [path.name for path in finished[1].iterdir()] == ["small"], "no mlflow.db without MLflow"


# Nothing is trained twice


def test_a_second_run_trains_nothing_and_prints_the_same_table(finished):
    path, results, first = finished
    again = train(path, results)
    assert "Nothing to train: all 12 trials are done" in again.stderr
    assert again.stdout == first.stdout
    (run,) = json.loads((results / "small" / "runs.json").read_text())  # of that which trained
    assert run["trials"] == 12 and run["device"] == "cpu" and run["versions"]["torch"]


def test_report_prints_the_table_of_the_run(finished):
    path, results, first = finished
    by_path, by_name = invoke("report", path, "--results", results), invoke("report", "small", "--results", results)
    assert by_path.stdout == by_name.stdout == first.stdout


def test_an_edited_experiment_trains_only_what_is_new(tmp_path):
    path = write(tmp_path)
    train(path, tmp_path / "results")
    before = records(tmp_path / "results" / "small"), series(tmp_path / "results" / "small", "steps")
    write(tmp_path, clip=[*ARMS, {"name": "zero", "threshold": 0.1}], seeds=[0, 1, 2, 7])
    said = json.loads(train(path, tmp_path / "results", "--json").stdout)
    assert (said["trials"], said["trained"]) == (20, 8)
    after = records(tmp_path / "results" / "small"), series(tmp_path / "results" / "small", "steps")
    for old, new in zip(before, after, strict=True):
        kept = new.loc[old.index, old.columns]
        pd.testing.assert_frame_equal(kept, old, check_exact=True, check_dtype=False)


def test_trials_that_the_yaml_no_longer_has_are_left_out_and_said(tmp_path):
    path = write(tmp_path)
    train(path, tmp_path / "results")
    write(tmp_path, clip=list(ARMS[:2]))
    said = train(path, tmp_path / "results")
    assert "value@0.01" not in said.stdout
    assert "3 other trials" in said.stdout or "3 trials" in said.stdout
    assert len(records(tmp_path / "results" / "small")) == 12, "but they are kept"


def test_seeds_and_set_change_the_experiment_without_its_file(finished, tmp_path):
    path, _, _ = finished
    train(path, tmp_path, "--seeds", "2", "--set", "train.epochs=1", "--set", "optimizer.lr=0.2")
    frame = pd.read_parquet(tmp_path / "small" / "records")
    assert set(frame["seed"]) == {0, 1} and set(frame["train.epochs"]) == {1} and set(frame["lr"]) == {0.2}


@pytest.mark.native  # others round by the number of trials that are trained at once
@pytest.mark.parametrize("folder", ["with a space", 'it\'s "quoted"', "ünïcödé-結果", "a/b/c", "[brackets] *"])
def test_results_may_be_in_any_folder(finished, tmp_path, folder):
    path, results, _ = finished
    train(path, tmp_path / folder, "--seeds", "1")
    alone = records(tmp_path / folder / "small")
    assert len(alone) == 4
    pd.testing.assert_frame_equal(
        alone, records(results / "small").loc[alone.index], check_exact=True, check_dtype=False
    )


def test_the_number_of_workers_changes_no_bit(tmp_path):
    path = write(tmp_path, seeds=5)
    for workers in (1, 2, 3):
        train(path, tmp_path / str(workers), "--workers", workers)
    assert len(saved(tmp_path / "1" / "small")) < len(saved(tmp_path / "3" / "small")), "it was cut differently"
    for other in ("2", "3"):
        assert_same(tmp_path / "1" / "small", tmp_path / other / "small")


def test_several_data_sets_models_and_optimizers_run_as_one_experiment(tmp_path):
    path = write(
        tmp_path,
        data=["wine", "breast_cancer"],
        model=["linear", {"name": "mlp", "hidden": [4]}],
        optimizer=[{"name": "sgd", "lr": [0.01, 0.1]}, {"name": "adam", "lr": 0.001}],
        clip=["none", {"name": "norm", "threshold": 1.0}],
        seeds=2,
    )
    said = json.loads(train(path, tmp_path / "results", "--json").stdout)
    assert said["trained"] == 2 * 2 * 3 * 2 * 2
    assert len(said["report"]["settings"]) == 2 * 2 * 3


def test_objectives_without_data_are_trained(tmp_path):
    (tmp_path / "bowl.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Bowl(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.w = nn.Parameter(torch.randn(3))\n"
        "    def forward(self):\n        return (self.w ** 2).sum()\n"
        "def bowl():\n    return Bowl()\n"
    )
    path = write(tmp_path, data=None, model="./bowl.py:bowl", train={"steps": 20, "loss": "output"})
    train(path, tmp_path / "results")
    frame = records(tmp_path / "results" / "small")
    assert (frame.loc[frame["arm"] == "none", "train/loss"] < 0.01).all()
    assert "test/accuracy" not in frame


def test_an_experiment_with_own_functions_is_reported_by_its_name(tmp_path):
    path = write(tmp_path, model="./mine.py:net", seeds=2)
    first = train(path, tmp_path / "results")
    assert invoke("report", "small", "--results", tmp_path / "results").stdout == first.stdout


def test_weights_are_kept_where_asked_for(tmp_path):
    import numpy as np

    path = write(tmp_path, train={"epochs": 1, "batch_size": 32, "save_weights": True})
    train(path, tmp_path / "results")
    folder = tmp_path / "results" / "small"
    kept = [np.load(file) for file in (folder / "weights").iterdir()]
    sizes = {name: file[name].size for file in kept for name in file.files}
    assert sizes == dict.fromkeys(records(folder).index, 610)


# Divergence is a result


def test_a_diverged_trial_is_counted_and_is_no_error(tmp_path):
    path = write(
        tmp_path, model={"name": "mlp", "hidden": [8]}, optimizer={"name": "sgd", "lr": 1e30}, train={"epochs": 3}
    )
    said = train(path, tmp_path / "results")
    frame = pd.read_parquet(tmp_path / "results" / "small" / "records")
    wild = frame[frame["arm"] == "none"]
    assert set(wild["status"]) == {"diverged"} and set(wild["diverged"]) == {1}
    assert (wild["diverged_step"] >= 1).all() and set(wild["diverged_cause"]) <= {"loss", "gradient", "weights"}
    assert "3 of 3" in said.stdout
    assert "Nothing to train" in train(path, tmp_path / "results").stderr, "it is not tried again"


def test_a_diverged_lane_stops_at_its_step_and_its_neighbours_go_on(tmp_path):
    path = write(tmp_path, optimizer={"name": "sgd", "lr": [0.1, 1e30]}, clip=["none"])
    train(path, tmp_path / "results")
    folder = tmp_path / "results" / "small"
    frame, steps = pd.read_parquet(folder / "records").set_index("id"), pd.read_parquet(folder / "steps")
    rows = steps.groupby("id").size()
    for trial, row in frame.iterrows():
        assert rows[trial] == (row["diverged_step"] if row["lr"] > 1 else 8)
    write(tmp_path, clip=["none"])
    train(path, tmp_path / "alone")
    alone = records(tmp_path / "alone" / "small")
    pd.testing.assert_frame_equal(
        records(folder).loc[alone.index, alone.columns], alone, check_exact=True, check_dtype=False
    )


def test_a_report_never_holds_a_number_that_json_cannot(tmp_path):
    path = write(tmp_path, optimizer={"name": "sgd", "lr": 1e30})
    said = train(path, tmp_path / "results", "--json")

    def refuse(constant):
        raise AssertionError(constant)

    json.loads(said.stdout, parse_constant=refuse)
    json.loads((tmp_path / "results" / "small" / "report.json").read_text(), parse_constant=refuse)


# The resolved experiment


def test_the_resolved_experiment_trains_to_the_same_trials(finished, tmp_path):
    _, results, _ = finished
    resolved = results / "small" / "experiment.yaml"
    train(resolved, tmp_path)
    assert_same(results / "small", tmp_path / "small")


def test_the_best_threshold_is_the_one_of_validation(finished):
    frame = table(finished[1] / "small")
    norm = frame[frame["strategy"] == "norm"]
    best = norm.loc[norm["criterion_mean"].idxmax()]
    assert bool(best["shown"]) and norm["shown"].sum() == 1
    measured = records(finished[1] / "small").query("arm == @best.arm")
    assert math.isclose(best["mean"], measured["test/accuracy"].mean(), rel_tol=1e-12)
    assert experiment()["seeds"] == len(measured)


def test_data_that_are_drawn_from_the_global_generators_are_trained_once(tmp_path):
    path = write(tmp_path, data="./drawn.py:data", seeds=1)
    (tmp_path / "drawn.py").write_text(DATA)
    first, again = (train(path, tmp_path / "results", "--workers", "2", "--json") for _ in range(2))
    assert (json.loads(first.stdout)["trained"], json.loads(again.stdout)["trained"]) == (4, 0)
    write(tmp_path, data={"name": "./drawn.py:data", "how": "seeded"}, seeds=1)
    assert "note: the data have changed: none of the 4 trials in" in train(path, tmp_path / "results").stderr


def test_data_that_differ_at_each_call_are_refused(tmp_path):
    path = write(tmp_path, data={"name": "./drawn.py:data", "how": "clock"}, seeds=1)
    (tmp_path / "drawn.py").write_text(DATA)
    said = invoke("run", path, "--results", tmp_path / "results", "--no-mlflow")
    assert said.exit_code == 2 and "it returns other data at each call. Draw random numbers from" in said.stderr
    assert not (tmp_path / "results").exists()
