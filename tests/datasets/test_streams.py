"""A stream draws fresh examples from its seed at every step; what it is judged on is drawn once and apart."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
import pytest
import torch

from clipbench import datasets, engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.datasets import DataProblem, Stream
from clipbench.plugins import registry
from tests import oracle
from tests.cli_helpers import invoke, train, write
from tests.engine.test_engine import assert_same_steps

C = Component.of
SMALL = {"split.val": 50, "split.test": 70, "split.seed": 0}
ORDER = C("temporal_order", length=20, **SMALL)
STREAMS = [name for name, plugin in registry.catalogue("data").items() if plugin.is_stream]


def draw(name: str, size: int, seed: int = 0, **options: object) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    function = registry.find("data", name).function
    return [np.asarray(part) for part in function(generator=generator, batch_size=size, **options)]


# The tasks


@pytest.mark.parametrize("length", [10, 20, 37, 200])
def test_temporal_order_tells_the_class_by_two_symbols_at_two_places(length):
    x, y = draw("temporal_order", 2000, length=length)
    assert x.shape == (2000, length, 6) and (x.sum(2) == 1).all()
    symbols = x.argmax(2)
    early, late = (slice(start, start + length // 10) for start in (length // 10, length // 2))
    assert ((symbols < 2).sum(1) == 2).all()
    for place, weight in ((early, 1), (late, 2)):
        assert ((symbols[:, place] < 2).sum(1) == 1).all()
        v = np.where(symbols[:, place] < 2, symbols[:, place], 0).sum(1)
        np.testing.assert_array_equal(v, y // weight % 2)
    np.testing.assert_allclose(np.bincount(y) / 2000, 0.25, atol=0.04)
    np.testing.assert_allclose(np.bincount(symbols[symbols > 1])[2:] / (symbols > 1).sum(), 0.25, atol=0.02)
    assert all(len(set((symbols[:, place] < 2).argmax(1))) == length // 10 for place in (early, late))


def test_adding_asks_for_the_sum_of_the_two_marked_numbers():
    x, y = draw("adding", 500, length=30)
    assert x.shape == (500, 30, 2) and y.shape == (500, 1)
    assert (x[:, :15, 1].sum(1) == 1).all() and (x[:, 15:, 1].sum(1) == 1).all()
    np.testing.assert_allclose((x[..., 0] * x[..., 1]).sum(1), y[:, 0], rtol=1e-6)
    assert y.mean() == pytest.approx(1, abs=0.06) and y.var() == pytest.approx(1 / 6, abs=0.03)


def test_copy_asks_for_what_was_there_after_the_signal():
    x, y = draw("copy", 50, length=4, delay=7)
    assert x.shape == (50, 15, 10) and y.shape == (50, 15)
    symbols = x.argmax(2)
    assert (symbols[:, 4:10] == 0).all() and (symbols[:, 10] == 9).all() and (symbols[:, 11:] == 0).all()
    np.testing.assert_array_equal(y[:, 11:], symbols[:, :4])
    assert (y[:, :11] == 0).all() and set(np.unique(y)) == set(range(9))


# What a seed fixes


@pytest.mark.parametrize("name", STREAMS)
def test_a_built_in_stream_is_the_same_for_the_same_seed_and_no_two_parts_are_alike(name):
    one, again = datasets.read(C(name, **SMALL)), datasets.read(C(name, **SMALL))
    other = datasets.read(C(name, **(SMALL | {"split.seed": 1})))
    assert isinstance(one, Stream) and one.takes_size
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert len(one.val[0]) == 50 and len(one.test[0]) == 70
    batch = one.batch(torch.Generator().manual_seed(0), 70)
    starts = [part[0][:20].tobytes() for part in (one.val, one.test, [batch[0].numpy()])]
    assert len(set(starts)) == 3  # nothing is judged on what the seed 0 is trained on


def test_the_fingerprint_follows_options_and_sizes():
    changes = [{}, {"length": 30}, {"split.seed": 3}, {"split.test": 71}, {"split.val": 0}]
    found = {datasets.load(C("temporal_order", **{"length": 20, **SMALL, **change})).fingerprint for change in changes}
    assert len(found) == len(changes)


def test_global_random_numbers_do_not_move_a_stream():
    torch.manual_seed(1)
    one = datasets.read(ORDER).fingerprint
    torch.manual_seed(2)
    assert datasets.read(ORDER).fingerprint == one


def test_lanes_of_a_seed_see_the_same_batches_and_those_of_another_seed_others():
    train = Training(epochs=None, steps=30, batch_size=10, metrics=(C("accuracy"),))
    arms = [C("none", exclude=()), C("norm", threshold=0.1, p=2.0, per="model", exclude=())]
    trials = [Trial(ORDER, C("mlp", hidden=[5]), C("sgd", lr=0.1), train, arm, seed) for seed in (0, 1) for arm in arms]
    records = engine.train(trials)
    losses = {trial: records.steps["train/loss"][records.steps["id"] == trial.id] for trial in trials}
    first = [round(float(losses[trial][0]), 6) for trial in trials]
    assert first[0] == first[1] != first[2] == first[3]
    for trial in trials:
        loop = oracle.Loop(trial, datasets.load(ORDER)).train(30)
        assert_same_steps(records, trial, loop, 1e-4)
        mine = records.records["id"] == trial.id
        x, y = (torch.as_tensor(part) for part in datasets.load(ORDER).test)
        accuracy = (loop.model(x).argmax(1) == y).float().mean()
        assert float(records.records["test/accuracy"][mine][0]) == pytest.approx(float(accuracy), abs=1e-6)
    for name in ("train/loss", "train/accuracy", "generalization_gap"):
        assert name not in records.records


# Trained as a plain loop trains


NATURAL = {
    "temporal_order": ({"length": 12}, C("rnn", hidden=6, init="basic")),
    "adding": ({"length": 8}, C("gru", hidden=5)),
    "copy": ({"length": 2, "delay": 3}, C("lstm", hidden=5)),
    "text": ({"length": 10, "characters": 2000}, C("rnn", hidden=6, embedding=4)),
}
ALL = [
    name
    for name, plugin in registry.catalogue("data").items()
    if all(option.default is not registry.REQUIRED for option in plugin.options.values())
]
ARMS = [C("none"), C("norm", threshold=0.05, p=2.0, per="model", exclude=())]


@pytest.mark.parametrize("name", ALL)
def test_every_data_set_is_trained_as_the_plain_loop_trains(name):
    options, model = NATURAL.get(name, ({}, C("mlp", hidden=[4], activation="tanh", bias=True)))
    parts = {"split.val": 20, "split.test": 20} if name in STREAMS else {"split.val": 0.2, "split.test": 0.2}
    facts = registry.find("data", name).facts
    data = C(name, **options, **parts, **{"split.seed": 0}, **({"standardize": True} if facts["standardize"] else {}))
    loaded = datasets.load(data)
    loss = facts["loss"] or ("cross_entropy" if loaded.classes else "mse")
    train = Training(epochs=None, steps=8, batch_size=10, loss=C(loss), dtype="float64")
    trials = [Trial(data, model, C("sgd", lr=0.05, momentum=0.9), train, arm, seed) for arm in ARMS for seed in (0, 4)]
    records = engine.train(trials)
    for trial in trials:
        assert_same_steps(records, trial, oracle.Loop(trial, loaded).train(8), 1e-9)


# A user's own

OWN = """
import numpy as np
import torch
from torch import nn

def line(generator, batch_size, slope=2.0):
    x = torch.randn(batch_size, 3, generator=generator)
    return x, slope * x.sum(1, keepdim=True)

def by_seven(generator):
    x = torch.randn(7, 3, generator=generator)
    return x, (x[:, 0] > 0)

def by_numpy(generator, batch_size):
    draw = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    x = draw.standard_normal((batch_size, 3))
    return x, x.sum(1)

def careless(generator, batch_size):
    return torch.randn(batch_size, 3), torch.zeros(batch_size)

def grows(generator):
    size = int(torch.randint(5, 9, (1,), generator=generator))
    return torch.randn(size, 3, generator=generator), torch.zeros(size)

def only_x(generator, batch_size):
    return torch.randn(batch_size, 3, generator=generator)

def nothing(generator):
    return torch.zeros(0, 3), torch.zeros(0)

def with_nan(generator, batch_size):
    return torch.full((batch_size, 3), float("nan")), torch.zeros(batch_size)

def not_a_stream(batch_size=40):
    x = np.arange(batch_size * 2.0).reshape(-1, 2)
    return x, x[:, :1]

class Distance(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))
    def forward(self, x):
        return ((x - self.w) ** 2).sum(1).mean()
"""
REFUSED = {
    "careless": "different examples for the same seed",
    "only_x": "expected .x, y.",
    "nothing": "contain 0 examples, but 1000 are needed",
    "with_nan": "the inputs of the val part contain NaN or infinite values",
}


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN))
    return lambda name, **options: C(f"./own.py:{name}", folder=str(tmp_path), **options)


@pytest.mark.parametrize("name, loss", [("line", "mse"), ("by_numpy", "mse"), ("by_seven", "cross_entropy")])
def test_own_streams_equal_the_plain_loop(own, name, loss):
    data = own(name, **SMALL)
    train = Training(epochs=None, steps=25, batch_size=12, loss=C(loss), dtype="float64")
    trials = [
        Trial(data, C("mlp", hidden=[4]), C("adam", lr=0.01), train, C("value", threshold=0.05, exclude=()), seed)
        for seed in (0, 5)
    ]
    records = engine.train(trials)
    loaded = datasets.load(data)
    assert len(loaded.val[0]) == 50 and len(loaded.test[0]) == 70
    for trial in trials:
        assert_same_steps(records, trial, oracle.Loop(trial, loaded).train(25), 1e-9)


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_stream_is_refused_in_words(own, name):
    with pytest.raises(DataProblem, match=REFUSED[name]):
        datasets.load(own(name))


def test_batches_of_changing_sizes_are_refused(own):
    stream = datasets.load(own("grows"))
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(DataProblem, match="batches must have the same shape"):
        for _ in range(20):
            stream.batch(generator, stream.batch_size(None))


def test_an_option_called_batch_size_makes_no_stream(own):
    loaded = datasets.load(own("not_a_stream", batch_size=20))
    assert not isinstance(loaded, Stream) and len(loaded.train[0]) == 12


# From the YAML


def test_a_stream_is_trained_from_the_yaml_to_the_table(tmp_path):
    data = {"name": "temporal_order", "length": 10, "split": {"val": 100, "test": 200}}
    options = {"steps": 40, "batch_size": 20, "epoch_steps": 15, "evaluate_every": 2}
    path = write(tmp_path, data=data, train=options, seeds=6)
    train(path, tmp_path / "results")
    records = pd.read_parquet(tmp_path / "results" / "small" / "records")
    epochs = pd.read_parquet(tmp_path / "results" / "small" / "epochs")
    assert set(records["data.split.test"]) == {200} and records["fingerprint"].nunique() == 1
    assert records["test/accuracy"].between(0.1, 1).all()
    assert epochs.groupby("id").size().eq(3).all()
    assert epochs.groupby("epoch")["val/accuracy"].count().tolist() == [0, 24, 24]


def test_an_epoch_of_a_stream_is_a_hundred_steps_if_nobody_says(own):
    train = Training(epochs=2, batch_size=4, loss=C("mse"))
    trial = Trial(own("line", **SMALL), C("linear"), C("sgd", lr=0.01), train, C("none"), 0)
    records = engine.train([trial])
    assert len(records.steps["step"]) == 200 and len(records.epochs["epoch"]) == 2


def test_a_model_may_turn_a_stream_into_its_loss(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    data = {"name": "./own.py:line", "split": {"val": 100, "test": 0}}
    options = {"steps": 200, "batch_size": 20, "loss": "output"}
    path = write(tmp_path, data=data, model="./own.py:Distance", train=options, seeds=3)
    train(path, tmp_path / "results")
    records = pd.read_parquet(tmp_path / "results" / "small" / "records")
    assert records["val/loss"].between(2, 4).all()  # the variance of three standard normal numbers
    assert not [name for name in records if name.startswith(("test/", "val/acc"))]


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"train": {"steps": 5, "batch_size": "full"}}, "train.batch_size: full batches are not supported for streams"),
        (
            {"data": {"name": "temporal_order", "standardize": True}},
            "is a stream, which does not support `standardize`",
        ),
        ({"data": {"name": "temporal_order", "split": {"val": 0.2}}}, "data.split.val: expected an integer"),
        ({"data": {"name": "temporal_order", "length": 9}}, "data.length: "),
        ({"data": "copy"}, "fails on outputs of shape (4, 9) and targets that are classes of shape (4, 40): "),
        ({"data": {"name": "temporal_order", "generator": 1}}, "no option 'generator'"),
    ],
)
def test_what_a_stream_cannot_do_is_said_with_its_place(tmp_path, changes, expected):
    path = write(tmp_path, **{"data": "temporal_order", **changes})
    said = invoke("run", path, "--dry-run", "--results", tmp_path / "results", "--no-mlflow")
    assert said.exit_code == 2, said.output
    assert expected in said.stderr
