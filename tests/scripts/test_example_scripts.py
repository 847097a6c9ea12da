"""The scripts of experiments/scripts: they train as loops without clipbench do, go on when killed, and are searched."""

import importlib.util
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from clipbench.scripts.standalone import StandaloneClip
from tests.cli_helpers import invoke, shell, train
from tests.scripts import example_loops
from tests.scripts.helpers import clip_of

FOLDER = Path(__file__).parents[2] / "experiments" / "scripts"
FILES = sorted(FOLDER.glob("*.yaml"))
# For each script a short training: its options, and a norm above which most of its gradients are clipped.
SHORT = {
    "character_gpt": ({"lr": 0.01, "epochs": 2, "characters": 8000}, 0.3),
    "image_resnet": ({"lr": 0.1, "epochs": 2}, 0.5),
    "word_lstm": ({"lr": 20.0, "epochs": 2, "words": 4000}, 0.25),
    "ring_gan": ({"lr": 0.001, "steps": 60}, 0.1),
    "cartpole_reinforce": ({"lr": 0.01, "episodes": 10}, 1.0),
    "bert_trainer": ({"lr": 0.003, "steps": 8, "accumulate": 2}, 0.3),
}
every_script = pytest.mark.parametrize("name", SHORT)


def script_of(name):
    if name == "bert_trainer":
        pytest.importorskip("transformers")
        pytest.importorskip("accelerate")
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def precise():
    """Train in float64: these loops amplify the last bits of a clipped gradient."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@every_script
def test_a_script_trains_as_a_loop_typed_without_clipbench(name, precise, tmp_path):
    script, (options, limit) = script_of(name), SHORT[name]
    clip = clip_of(f"norm@{limit}", seed=3)
    script.main(clip, seed=3, **options)
    folder = {"folder": str(tmp_path)} if name == "bert_trainer" else {}
    expected = getattr(example_loops, name)(script, 3, limit, **options, **folder)
    found = clip.log.rows()
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6, atol=1e-6)
    assert found[:, 4].mean() > 0.3, "many steps are clipped"
    assert len(clip.reports) >= 1


def test_there_is_a_test_for_each_script():
    assert {file.stem for file in FOLDER.glob("*.py")} == set(SHORT)
    scripts = {yaml.safe_load(file.read_text())["train"].get("script") for file in FILES}
    assert scripts == {None, *(f"./{name}.py" for name in SHORT)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_is_checked_and_found_right(file):
    if "bert" in file.stem:
        pytest.importorskip("transformers")
    said = invoke("check", file)
    assert said.exit_code == 0, said.stderr


class FirstReport(BaseException):
    pass


@every_script
def test_a_script_runs_alone(name, monkeypatch, capsys):
    script_of(name)
    report = StandaloneClip.report

    def reported(clip, measures):
        report(clip, measures)
        raise FirstReport

    monkeypatch.setattr(StandaloneClip, "report", reported)
    monkeypatch.setattr(sys, "argv", ["script.py", "--clip", "norm@1.0", "--seed", "1"])
    with pytest.raises(FirstReport):
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert ": val/" in capsys.readouterr().out


def test_the_gpt_as_a_script_and_as_components_has_the_same_numbers(tmp_path):
    found = {}
    for stem, double in (("1-character-gpt", "train.double=true"), ("1-character-gpt-built-in", "train.dtype=float64")):
        experiment = yaml.safe_load((FOLDER / f"{stem}.yaml").read_text())
        options = ["--set", double, "--set", "train.epochs=2", "--seeds", "2"]
        section, characters = ("train", "train") if "script" in experiment["train"] else ("optimizer", "data")
        options += ["--set", f"{section}.lr=0.005", "--set", f"{characters}.characters=8000"]
        path = tmp_path / f"{stem}.yaml"
        experiment["claims"] = []
        path.write_text(yaml.safe_dump(experiment))
        shutil.copy(FOLDER / "character_gpt.py", tmp_path)
        train(path, tmp_path / "results", *options)
        folder = tmp_path / "results" / experiment["name"]
        steps = pd.read_parquet(folder / "steps").merge(pd.read_parquet(folder / "records")[["id", "arm", "seed"]])
        records = pd.read_parquet(folder / "records").sort_values(["arm", "seed"])
        found[stem] = steps.sort_values(["arm", "seed", "step"]), records
    (left, records), (right, others) = found.values()
    assert len(left) == 2 * 2 * 2 * 13
    for column in ("train/loss", "grad_norm/pre", "grad_norm/post"):
        np.testing.assert_allclose(left[column], right[column], rtol=1e-6)
    for column in ("val/loss", "test/loss", "weight_norm"):
        np.testing.assert_allclose(records[column], others[column], rtol=1e-6)


KILLED = """
import os
from pathlib import Path

import {name} as script


def main(clip, seed, kill_at, marker):
    step = clip.step

    def killed(*given):
        info = step(*given)
        if len(clip.log) == kill_at and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), 9)
        return info

    clip.step = killed
    return script.main(clip, seed, **{options})
"""


@pytest.mark.parametrize(("name", "kill_at"), [("character_gpt", 17), ("image_resnet", 13)])
def test_a_killed_script_goes_on_with_the_same_numbers(name, kill_at, tmp_path):
    options, _ = SHORT[name]
    shutil.copy(FOLDER / f"{name}.py", tmp_path)
    (tmp_path / "killed.py").write_text(KILLED.format(name=name, options=options))
    marker, path = tmp_path / "marker", tmp_path / "killed.yaml"
    section = {"script": "./killed.py", "kill_at": kill_at, "marker": str(marker)}
    arms = [{"name": "autoclip", "threshold": 50}]  # which remembers the norms of all steps
    path.write_text(yaml.safe_dump({"train": section, "clip": arms, "seeds": [3]}))
    train(path, tmp_path / "results")
    assert marker.exists()
    clip = clip_of("autoclip@50", seed=3)
    measured = script_of(name).main(clip, seed=3, **options)
    folder = tmp_path / "results" / "killed"
    steps = pd.read_parquet(folder / "steps").sort_values("step")
    np.testing.assert_array_equal(steps["train/loss"], clip.log.rows()[:, 0])
    (record,) = pd.read_parquet(folder / "records").to_dict("records")
    assert {key: record[key] for key in measured} == {key: float(value) for key, value in measured.items()}


# The range of the norm that is searched, where thresholds matter, and options that shorten the training.
SEARCHES = {
    "3-word-lstm": ([0.001, 10], "train.epochs=4", "train.words=3000"),
    "4-ring-gan": ([0.001, 10], "train.steps=80", "train.lr=0.01"),
    "5-cartpole-reinforce": ([2, 200], "train.episodes=60"),
    "2-image-resnet": ([0.001, 10], "train.epochs=3", "train.lr=1.0"),
}


QUICK = "3-word-lstm"


@pytest.mark.parametrize("stem", [pytest.param(s, marks=[pytest.mark.slow] if s != QUICK else []) for s in SEARCHES])
def test_a_search_prunes_and_confirms_a_script(stem, tmp_path):
    searched, *sets = SEARCHES[stem]
    experiment = yaml.safe_load((FOLDER / f"{stem}.yaml").read_text())
    experiment |= {"clip": ["none", {"name": "norm", "threshold": {"log": searched}}], "seeds": 2, "claims": []}
    experiment["sweep"] = {
        "trials": 14,
        "seeds": 1,
        "batch": 7,
        "confirm_seeds": 2,
        "pruner": "median",
        "sampler": "random",
    }
    shutil.copytree(FOLDER, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "scripts" / f"{stem}.yaml"
    path.write_text(yaml.safe_dump(experiment))
    options = [word for each in sets for word in ("--set", each)]
    said = shell("sweep", path, "--results", tmp_path / "results", "--no-mlflow", "--json", *options, timeout=600)
    assert said.returncode == 0, said.stderr
    records = pd.read_parquet(tmp_path / "results" / experiment["name"] / "records")
    assert (records["status"] == "pruned").any()
    confirmed = records[records["seed"] > 1]
    assert set(confirmed["strategy"]) == {"none", "norm"}
    assert json.loads(said.stdout)["trained"] == len(records)
