"""A training that is interrupted goes on from its checkpoint, and ends bit for bit the same."""

from __future__ import annotations

import io
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipbench import engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine import checkpoint
from clipbench.store import checkpoint_files
from tests.datasets.test_streams import ORDER
from tests.engine.test_ended_lanes import LINE, NETWORKS, NORMAL, assert_same, long, trials_of
from tests.engine.test_engine import ARMS, OPTIMIZERS
from tests.engine.test_scope import FOUR, in_scope
from tests.thinning import one_of

C = Component.of
TOY = "tests.toys:"
EVERY = ["none", "norm", "value", "autoclip", "skip", "adagc", "zclip"]


def toy(name, **options):
    optimizers, model = ["momentum", "adam"], C(f"{TOY}{name}", **options)
    return trials_of((LINE, model), optimizers, arms=["none", "norm", "skip"], batch_size=8)


def stream():
    train = Training(epochs=4, batch_size=8, epoch_steps=5, loss=C("cross_entropy"), metrics=(C("accuracy"),))
    cells = C("rnn", hidden=5, layers=1, embedding=3, activation="tanh", init="default", std=None)
    return [Trial(ORDER, cells, OPTIMIZERS["adam"], train, ARMS["norm"], seed) for seed in (3, 5)]


QUANTILE = C("", quantile=0.4, lr=0.5, noise=2.0, min=0.0, max=float("inf"))
# What a checkpoint must hold, and trials that have it.
KEPT = {
    "rules and optimizers": lambda: trials_of(arms=EVERY, optimizers=["momentum", "adam"]),
    "a schedule": lambda: trials_of(schedule=C("cosine", final=0.1, warmup=3)),
    "noise": lambda: trials_of(noise=NORMAL),
    "an average": lambda: trials_of(ema=0.9),
    "accumulation": lambda: trials_of(accumulate=2),
    "early stopping": lambda: trials_of(early_stop=C("val/loss", patience=1, min_delta=0.05)),
    "examples": lambda: trials_of(arms=in_scope("sample")[:3]),
    "parts": lambda: trials_of(arms=in_scope(FOUR)[:3]),
    "a threshold that adapts": lambda: trials_of(
        arms=[C("norm", **ARMS["norm"].as_dict(), scope="sample", noise=0.5, adapt=QUANTILE)]
    ),
    "full batches": lambda: trials_of(batch_size=None),
    "a stream": stream,
    "dropout": lambda: toy("with_dropout"),
    "batch normalization": lambda: toy("with_batch_norm"),
    "a model that looks at numbers": lambda: toy("looks_at_numbers"),
    "a model that counts": lambda: toy("counts_batches"),
    "recurrence": lambda: [
        Trial(*NETWORKS["gru"], OPTIMIZERS["adam"], long(Training(**PLAIN), 4), ARMS[arm], 3)
        for arm in ("none", "norm")
    ],
}
PLAIN = {"batch_size": 16, "loss": C("cross_entropy"), "metrics": (C("accuracy"),)}


class Interrupted(Exception):
    pass


@pytest.fixture(autouse=True)
def at_every_block(monkeypatch):
    monkeypatch.setattr(checkpoint, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)
    engine.WORKSPACES.clear()  # blocks may be short
    torch.set_num_threads(1)


def interrupted(trials, file, calls):
    """Train until progress was reported so often; return the lane-steps that were taken."""
    done = []

    def progress(steps):
        done.append(steps)
        if len(done) > calls:
            raise Interrupted

    with pytest.raises(Interrupted):
        engine.train(trials, progress=progress, checkpoint=str(file))
    return sum(done)


@pytest.mark.parametrize("what", one_of(2, KEPT))
def test_an_interrupted_training_ends_as_if_it_had_not_been(what, tmp_path):
    trials = [replace(trial, train=replace(trial.train, save_weights=True)) for trial in KEPT[what]()]
    expected, file = engine.train(trials), tmp_path / "chunk.checkpoint"
    draw, first = random.Random(what), []
    for calls in sorted(draw.sample(range(2, 5), 2)):
        interrupted(trials, file, calls)
        engine.WORKSPACES.clear()
        first.append(checkpoint_files.read(file)[0]["step"])
    assert 0 < first[0] <= first[1] < len(expected.steps["step"]) / len(trials)
    reported = []
    found = engine.train(trials, progress=reported.append, checkpoint=str(file))
    assert reported[0] >= first[1] * len(trials), "it begins with what was done"
    assert_same(expected, found, {trial.id for trial in trials})


def test_a_model_that_keeps_more_than_tensors_begins_anew(tmp_path):
    trials = trials_of((LINE, C("tests.engine.foreign_models:CountsEverything")), arms=["none"], batch_size=8)
    file = tmp_path / "chunk.checkpoint"
    interrupted(trials, file, 3)
    assert not file.exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "text", "other trials", "other machine", "other names"])
def test_a_checkpoint_that_cannot_be_used_is_not(damage, tmp_path):
    trials, file = trials_of(), tmp_path / "chunk.checkpoint"
    expected = engine.train(trials)
    interrupted(trials, file, 3)
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[:-100])
    elif damage == "changed":
        file.write_bytes(whole[:-500] + bytes([whole[-500] ^ 1]) + whole[-499:])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "text":
        file.write_text("hello\nyou")
    elif damage == "other trials":
        file.write_bytes(whole.replace(trials[0].id.encode(), b"0" * len(trials[0].id), 1))
    elif damage == "other names":
        header, content = checkpoint_files.read(file)
        kept = torch.load(io.BytesIO(content), weights_only=True)
        name = next(name for name in kept["state"] if name.startswith("params."))
        kept["state"]["params.renamed"] = kept["state"].pop(name)
        buffer = io.BytesIO()
        torch.save(kept, buffer)
        checkpoint_files.write(file, {"about": header["about"]}, buffer.getvalue())
    else:
        file.write_bytes(whole.replace(torch.__version__.encode(), b"9" * len(torch.__version__), 1))
    assert_same(expected, engine.train(trials, checkpoint=str(file)), {trial.id for trial in trials})
    assert set(checkpoint_files.read(file)[0]["about"]["trials"]) == {trial.id for trial in trials}, (
        "another took its place"
    )


def test_a_checkpoint_that_cannot_be_written_stops_nothing(tmp_path, recwarn):
    (tmp_path / "file").write_text("in the way")
    trials = trials_of()
    found = engine.train(trials, checkpoint=str(tmp_path / "file" / "chunk.checkpoint"))
    assert_same(engine.train(trials), found, {trial.id for trial in trials})
    assert "cannot be written" in str(recwarn[0].message)


def test_few_of_the_time_goes_into_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr(checkpoint, "SHARE", 0.015)
    spent, write = [], checkpoint.Checkpoint.keep

    def keep(self, training):
        began = checkpoint.time.monotonic()
        write(self, training)
        spent.append(checkpoint.time.monotonic() - began)

    monkeypatch.setattr(checkpoint.Checkpoint, "keep", keep)
    began = checkpoint.time.monotonic()
    engine.train(trials_of(epochs=150), checkpoint=str(tmp_path / "chunk.checkpoint"))
    seconds = checkpoint.time.monotonic() - began
    assert spent and sum(spent[:-1]) < 0.02 * seconds + np.max(spent)
