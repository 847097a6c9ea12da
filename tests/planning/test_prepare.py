"""Mistakes that only the data and the models show: each is said with its place, all at once, and nothing is started."""

import re

import pytest

from clipbench.planning import plan
from clipbench.planning.build import prepare
from tests.cli_helpers import invoke, write

OWN = """
import numpy as np
import torch
from torch import nn

def with_nan():
    x = np.ones((50, 4)); x[7, 2] = np.nan
    return x, np.arange(50) % 2

def unequal():
    return np.ones((50, 4)), np.arange(40) % 2

def words():
    return np.array([["a", "b"]] * 50), np.arange(50) % 2

def negative():
    return np.ones((50, 4)), np.arange(50) % 2 - 1

def three():
    return 1, 2, 3

def none():
    return None

def no_train():
    return {"val": (np.ones((5, 4)), np.zeros(5, int))}

def one_example():
    return np.ones((1, 4)), np.zeros(1, int)

def explodes():
    raise OSError("the disk ate it")

def not_a_module():
    return 7

def narrow():
    return nn.Linear(3, 10)

def no_parameters():
    return nn.Flatten()

def output_is_a_tuple(inputs, outputs):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(inputs, outputs)
        def forward(self, x):
            return self.layer(x), x
    return Pair()

def bad_loss(output, target):
    return output.nonsense()

def below(step, steps):
    return -1

def no_rate(step, steps):
    return None

def too_few(size, generator):
    return torch.zeros(3)

def vector_loss(output, target):
    return (output.sum(1) - target) ** 2
"""

# What is wrong, the changes that make it so, the key that is said and words of the message.
MISTAKES = {
    "a model that cannot read the data": ({"model": "./own.py:narrow"}, "model", "64"),
    "a model that needs images": ({"model": "cnn", "data": "wine"}, "model", "cnn"),
    "a loss for real targets on classes": ({"train": {"loss": "./own.py:bad_loss"}}, "train.loss", "nonsense"),
    "a loss that is no scalar": ({"train": {"loss": "./own.py:vector_loss"}}, "train.loss", "vector_loss"),
    "a schedule that goes nowhere": ({"train": {"schedule": "./own.py:no_rate"}}, "train.schedule", "None"),
    "a schedule below 0": ({"train": {"schedule": "./own.py:below"}}, "train.schedule", "at least 0, got -1"),
    "an early stop without validation data": (
        {"data": {"name": "digits", "split": {"val": 0}}, "train": {"early_stop": 3}},
        "train.early_stop",
        "Write {measure: train/loss, patience: 3}.",
    ),
    "an early stop by a metric of other data": (
        {"train": {"early_stop": {"measure": "val/r2", "patience": 3}}},
        "train.early_stop",
        "there is no such metric",
    ),
    "noise of another shape": ({"train": {"noise": "./own.py:too_few"}}, "train.noise", "(2, 3)"),
    "noise that has no variance": ({"train": {"noise": {"name": "burr", "c": 1, "d": 2}}}, "train.noise", "above 2"),
    "a model with two outputs": ({"model": "./own.py:output_is_a_tuple"}, "model", "tuple"),
    "a model that is none": ({"model": "./own.py:not_a_module"}, "model", "Module"),
    "a model without parameters": ({"model": "./own.py:no_parameters"}, "model", "parameters"),
    "data with NaN": ({"data": "./own.py:with_nan"}, "data", "finite"),
    "data of unequal lengths": ({"data": "./own.py:unequal"}, "data", "50"),
    "data that are words": ({"data": "./own.py:words"}, "data", "numbers"),
    "classes below 0": ({"data": "./own.py:negative"}, "data", "classes must be at least 0, got -1"),
    "data that are no pair": ({"data": "./own.py:three"}, "data", "tuple"),
    "data that are nothing": ({"data": "./own.py:none"}, "data", "NoneType"),
    "data without a training part": ({"data": "./own.py:no_train"}, "data", "train"),
    "one example": ({"data": "./own.py:one_example"}, "data", "1"),
    "data that cannot be read": ({"data": "./own.py:explodes"}, "data", "the disk ate it"),
    "a group of nothing": (
        {"optimizer": {"name": "sgd", "groups": [{"match": ["*.bias"], "lr": 1.0}, {"match": ["haed", "head"]}]}},
        "optimizer.groups[1].match",
        "no parameter matches 'haed'. Did you mean `head`?",
    ),
    "a group behind another": (
        {"optimizer": {"name": "sgd", "groups": [{"match": "*"}, {"match": ["head"]}]}},
        "optimizer.groups[1].match",
        "the first group that matches wins",
    ),
    "a threshold of nothing": (
        {"clip": ["none", {"name": "norm", "groups": {"haed": 1.0, "*": 2.0}}]},
        "clip[1].groups.haed",
        "no parameter matches 'haed'. Did you mean `head`?",
    ),
    "a threshold behind another": (
        {"clip": ["none", {"name": "norm", "groups": {"*": 2.0, "head": 1.0}}]},
        "clip[1].groups.head",
        "the first group that matches wins",
    ),
    "too few thresholds": (
        {"clip": ["none", {"name": "norm", "groups": [1.0, 2.0, 3.0]}]},
        "clip[1].groups",
        "groups has 3 thresholds, and mlp has 4 trained parameters: hidden1.weight, hidden1.bias, head.weight, head.bias.",
    ),
    "only thresholds of what is not clipped": (
        {"clip": ["none", {"name": "norm", "groups": {"head": 1.0}, "exclude": ["head"]}]},
        "clip[1].groups",
        "no trained parameter of mlp is in a group with a threshold",
    ),
    "an exclude that matches nothing": (
        {"clip": ["none", {"name": "norm", "threshold": 1.0, "exclude": ["haed"]}]},
        "clip[1].exclude",
        "'haed'",
    ),
    "an exclude that leaves nothing": (
        {"clip": ["none", {"name": "norm", "threshold": 1.0, "exclude": ["*"]}]},
        "clip[1].exclude",
        "exclude matches every trained parameter of mlp",
    ),
    "a batch that is larger than the data": (
        {"train": {"batch_size": 5000, "drop_last": True}},
        "train.batch_size",
        "at most 100, the number of training examples, got 5000",
    ),
    "an own file with a syntax error": ({"model": "./broken.py:net"}, "model", "broken.py"),
    "an own file that cannot be imported": ({"model": "./lost.py:net"}, "model", "no_such_library"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_has_its_place_and_starts_nothing(tmp_path, mistake):
    changes, key, words = MISTAKES[mistake]
    path = write(tmp_path, **changes)
    _own_files(tmp_path)
    result = invoke("run", path, "--results", tmp_path / "results", "--no-mlflow")
    assert result.exit_code == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line != "Planning"]  # said where it takes long
    assert all(re.match(rf"{re.escape(str(path))}:\d+:\d+: [a-z]", line) for line in lines), result.stderr
    assert any(f": {key}" in line and words in line for line in lines), result.stderr
    assert "Traceback" not in result.stderr and not result.stdout
    assert not (tmp_path / "results").exists()


def test_all_mistakes_are_said_at_once(tmp_path):
    path = write(
        tmp_path,
        data=["digits", "./own.py:with_nan", "./own.py:explodes"],
        model=["mlp", "./own.py:not_a_module"],
        clip=["none", {"name": "norm", "threshold": 1.0, "exclude": ["haed"]}],
    )
    _own_files(tmp_path)
    result = invoke("run", path, "--results", tmp_path / "results", "--no-mlflow")
    keys = [re.search(r":\d+:\d+: ([^:]+):", line)[1] for line in result.stderr.splitlines()]
    assert keys == ["data[1]", "data[2]", "model[1]", "clip[1].exclude"]


def test_a_near_name_of_a_parameter_is_proposed(tmp_path):
    path = write(tmp_path, clip=[{"name": "agc", "threshold": 0.1, "exclude": ["haed"]}])
    assert "Did you mean `head`?" in invoke("run", path, "--no-mlflow", "--results", tmp_path / "r").stderr


def test_a_mistake_is_the_same_before_a_dry_run(tmp_path):
    path = write(tmp_path, data="./own.py:with_nan")
    _own_files(tmp_path)
    run, dry = (invoke("run", path, "--results", tmp_path / "r", *more) for more in (["--no-mlflow"], ["--dry-run"]))
    assert (dry.exit_code, dry.stderr) == (2, run.stderr)


def _own_files(folder):
    (folder / "own.py").write_text(OWN)
    (folder / "broken.py").write_text("def net(:\n    return 1\n")
    (folder / "lost.py").write_text("import no_such_library\ndef net():\n    return 1\n")


@pytest.mark.parametrize(
    "model, data, most_lanes",
    [("mlp", "digits", 32), ({"name": "rnn", "hidden": 64}, {"name": "temporal_order", "length": 200}, 10)],
)
def test_chunks_are_as_large_as_what_a_step_keeps_allows(tmp_path, model, data, most_lanes):
    """A recurrent network keeps every step of its sequences, though it is one layer."""
    path = write(tmp_path, model=model, data=data, train={"steps": 2, "batch_size": 64}, clip=["none"], seeds=40)
    (cohort,) = prepare(str(path)).cohorts
    assert plan.most_lanes(cohort, "cpu") <= most_lanes
    assert (plan.most_lanes(cohort, "cpu") == 32) == (model == "mlp")


@pytest.mark.parametrize("option", ["folder", "label", "source", "name_of"])
def test_options_of_the_users_own_may_have_any_name(tmp_path, option):
    (tmp_path / "mine.py").write_text(
        f"def data({option}):\n    assert {option} == 'x'\n    return [[1.0], [2.0]] * 20, [0, 1] * 20\n"
    )
    (tmp_path / "e.yaml").write_text(
        f"data: {{name: './mine.py:data', {option}: x}}\nmodel: linear\noptimizer: {{name: sgd, lr: 0.1}}\nclip: [none]\n"
    )
    (cohort,) = prepare(str(tmp_path / "e.yaml")).cohorts
    assert cohort.trials[0].data[option] == "x"
