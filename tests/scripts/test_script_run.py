"""A script as an experiment: its trials equal a loop typed by hand, are kept, and go on where they were killed."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from clipbench.config.script_section import seems_script
from tests.cli_helpers import TIMINGS, invoke, train
from tests.scripts import hand_loop
from tests.scripts.helpers import write_script

ARMS = ["none", {"name": "norm", "threshold": [0.5]}, {"name": "value", "threshold": 0.05}]
BY_HAND = {
    "none": lambda model: None,
    "norm@0.5": lambda model: torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5),
    "value@0.05": lambda model: torch.nn.utils.clip_grad_value_(model.parameters(), 0.05),
}


def table(results, name, sort=("id",)):
    return pd.read_parquet(results / "script" / name).sort_values(list(sort), ignore_index=True)


def without_timings(frame):
    return frame.drop(columns=[name for name in TIMINGS if name in frame])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The results of a script with three arms, two learning rates and two seeds."""
    folder = tmp_path_factory.mktemp("script")
    path = write_script(
        folder,
        train={"lr": [0.01, 0.1], "metrics": {"bleu": "maximize"}, "target": {"val/loss": 20}},
        clip=ARMS,
        seeds=2,
    )
    said = train(path, folder / "results")
    return path, folder / "results", said


@pytest.mark.parametrize("lr", [0.01, 0.1])
@pytest.mark.parametrize("arm", BY_HAND)
def test_trials_equal_a_loop_that_is_typed_by_hand(trained, arm, lr):
    records, epochs, steps = (table(trained[1], name) for name in ("records", "epochs", "steps"))
    for seed in (0, 1):
        losses, validation, test = hand_loop.by_hand(BY_HAND[arm], seed, lr=lr)
        row = records[(records["arm"] == arm) & (records["seed"] == seed) & (records["train.lr"] == lr)].iloc[0]
        found = steps[steps["id"] == row["id"]].sort_values("step")["train/loss"]
        np.testing.assert_allclose(found, losses, rtol=1e-6)
        found = epochs[epochs["id"] == row["id"]].sort_values("epoch")["val/loss"]
        np.testing.assert_allclose(found, validation, rtol=1e-6)
        assert row["test/loss"] == pytest.approx(test, rel=1e-6)
        assert row["val/loss"] == pytest.approx(validation[-1]), "the last report is the final value"
        assert row["best_val/loss"] == pytest.approx(min(validation))
        assert (row["status"], row["engine"], row["epochs"]) == ("finished", "script", 3)


def test_records_have_the_options_of_the_script_and_what_the_rule_did(trained):
    records = table(trained[1], "records").set_index("arm")
    assert set(records["train.script"]) == {"./hand_loop.py:main"}
    assert set(records["train.width"]) == {8}
    assert not records.loc["none", "clip/fired_share"].any()
    assert (records.loc["norm@0.5", "clip/fired_share"] > 0.5).all()
    assert records["model"].isna().all()
    reached = records["epochs_to_target"]
    assert set(reached.dropna()) <= {1, 2, 3}
    assert "train.timeout" not in records, "limits change no number"


def test_arms_of_a_seed_begin_alike(trained):
    records = table(trained[1], "records")
    for column in ("initial_weights", "first_batches"):
        assert records.groupby("seed")[column].nunique().eq(1).all()
        assert records[column].nunique() == 2
    assert "Not paired" not in trained[2].stdout


def test_what_is_done_is_not_trained_again_until_the_script_or_a_module_beside_it_changes(tmp_path):
    path = write_script(tmp_path, clip=["none"], train={"width": 4})
    options = ("--results", tmp_path / "results", "--no-mlflow", "--json")
    script = tmp_path / "hand_loop.py"
    (tmp_path / "beside.py").write_text("VALUE = 1\n")
    script.write_text("import beside\n" + script.read_text())
    trained = [json.loads(invoke("run", path, *options).stdout)["trained"] for _ in range(2)]
    (tmp_path / "beside.py").write_text("VALUE = 2\n")
    trained.append(json.loads(invoke("run", path, *options).stdout)["trained"])
    assert trained == [1, 0, 1]


@pytest.mark.parametrize("kill_at", [3, 8, 13, 24])
def test_a_killed_trial_goes_on_with_the_same_numbers(tmp_path, trained, kill_at):
    marker = tmp_path / "killed"
    options = {"kill_at": kill_at, "marker": str(marker)}
    path = write_script(tmp_path, train={"lr": 0.1, **options}, clip=[{"name": "autoclip", "threshold": 50}])
    train(path, tmp_path / "results")
    assert marker.exists()
    train(path, tmp_path / "once", "--set", "train.kill_at=0")
    for name in ("records", "epochs", "steps"):
        left, right = (table(tmp_path / each, name) for each in ("results", "once"))
        drop = ["id", "train.kill_at", "train.marker", *TIMINGS]
        pd.testing.assert_frame_equal(
            left.drop(columns=drop, errors="ignore"), right.drop(columns=drop, errors="ignore"), check_exact=True
        )
    assert not list((tmp_path / "results" / "script" / "checkpoints").glob("*.pt")), "a state is kept until the end"


def test_the_report_warns_where_arms_of_a_seed_do_not_begin_alike(tmp_path):
    path = write_script(tmp_path, clip=["none", {"name": "norm", "threshold": 0.5}], seeds=2)
    script = tmp_path / "hand_loop.py"
    script.write_text(script.read_text().replace("    clip.seed_all()\n", "", 1))
    said = train(path, tmp_path / "results").stdout
    assert "different initial weights on 2 of 2 seeds (0, 1)" in " ".join(said.split())
    assert "Call clip.seed_all() before the model is built." in " ".join(said.split())


def test_a_sweep_prunes_and_confirms_a_script(tmp_path):
    sweep = {"trials": 14, "seeds": 2, "batch": 7, "confirm_seeds": 2, "pruner": "median", "sampler": "random"}
    arms = ["none", {"name": "norm", "threshold": {"log": [0.001, 10]}}]
    path = write_script(tmp_path, clip=arms, seeds=2, sweep=sweep)
    said = invoke("sweep", path, "--results", tmp_path / "results", "--no-mlflow", "--json")
    assert said.exit_code == 0, said.stderr
    records = table(tmp_path / "results", "records")
    pruned = records[records["status"] == "pruned"]
    assert len(pruned) > 0
    assert (pruned["epochs"] == 2).any()
    assert pruned["test/loss"].isna().all()
    assert pruned.groupby("point")["seed"].nunique().eq(2).all(), "the seeds of a point are pruned together"
    fresh = records[records["seed"] > 1]
    assert set(fresh["strategy"]) == {"none", "norm"}
    again = json.loads(invoke("sweep", path, "--results", tmp_path / "results", "--no-mlflow", "--json").stdout)
    assert again["trained"] == 0


def test_a_search_says_which_measure_the_script_lacks(tmp_path):
    sweep = {"trials": 2, "seeds": 1, "objective": "val/accuracy", "pruner": "none"}
    path = write_script(tmp_path, clip=[{"name": "norm", "threshold": {"log": [0.01, 10]}}], sweep=sweep)
    said = invoke("sweep", path, "--results", tmp_path / "results", "--no-mlflow")
    assert said.exit_code == 1
    assert (
        "the search needs val/accuracy, and the script measured val/loss, test/loss, test/bleu"
        in said.stderr.replace("\n", " ")
    )


def test_a_claim_names_an_argument_of_the_script_by_its_own_name(tmp_path):
    claims = [{"says": "a high rate is better", "expect": "none[lr=0.1] > none[lr=0.01]"}]
    path = write_script(tmp_path, train={"lr": [0.01, 0.1]}, seeds=2, claims=claims)
    report = json.loads(train(path, tmp_path / "results", "--json").stdout)["report"]
    assert report["claims"][0]["verdict"] != "untestable"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('train: {script: "./train.py"}', True),
        ('{"train": {"script": "./train.py"}}', True),
        ("train:\n  lr: 1\n  script: ./train.py:main", True),
        ("# It does the same as transcript.yaml.\nmodel: script\ndescription: none", False),
    ],
)
def test_the_experiment_of_a_script_is_seen_before_it_is_read(tmp_path, text, expected):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert seems_script(path) is expected
    assert not seems_script(tmp_path / "absent.yaml")
