"""Accumulated batches, an average of the weights, and smoothed labels, beside plain loops typed from the documentation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clipbench import datasets, engine
from clipbench.core.records import Records
from clipbench.core.trial import Component, Training, Trial
from clipbench.plugins import registry
from tests import oracle
from tests.thinning import one_of

C = Component.of
CLASSES = C("digits", limit=150, **{"split.val": 0.2, "split.test": 0.2, "split.seed": 0, "standardize": False})
ARMS = [C("none"), C("norm", threshold=0.3, p=2.0, per="model", exclude=()), C("skip", threshold=1.2, exclude=())]
MODELS = {
    "mlp": C("mlp", hidden=(12,), activation="relu"),
    "dropout": C("tests.toys:with_dropout"),
    "batch norm": C("tests.toys:with_batch_norm"),
    "looped": C("tests.toys:looks_at_numbers"),
}
EPOCHS = 3


def with_defaults(name: str) -> Component:
    return C(name, **{option.name: option.default for option in registry.of("model", C(name)).options.values()})


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trials_of(model: str = "mlp", arms: list[Component] = ARMS, **options: object) -> list[Trial]:
    options = {"epochs": EPOCHS, "batch_size": 16, "loss": C("cross_entropy"), "dtype": "float64", **options}
    train = Training(metrics=(C("accuracy"),), save_weights=True, **options)
    sgd = C("sgd", lr=0.1, momentum=0.9)
    return [Trial(CLASSES, MODELS[model], sgd, train, arm, seed) for seed in (1, 2) for arm in arms]


def parts() -> dict[str, tuple[Tensor, Tensor]]:
    loaded = datasets.load(CLASSES)
    return {
        name: (torch.tensor(x, dtype=torch.float64), torch.tensor(y))
        for name, (x, y) in (("train", loaded.train), ("val", loaded.val), ("test", loaded.test))
    }


def batches_of(trial: Trial, x: Tensor, drop_last: bool = False) -> Iterator[Iterator[Tensor]]:
    """The batches of each epoch."""
    draw = torch.Generator().manual_seed(trial.seed)
    for _ in range(EPOCHS):
        batches = torch.split(torch.randperm(len(x), generator=draw), 16)
        yield [batch for batch in batches if len(batch) == 16 or not drop_last]


def clip(trial: Trial, model: torch.nn.Module) -> bool:
    """Clip the gradients; return whether the step is taken."""
    if trial.clip.name == "norm":
        torch.nn.utils.clip_grad_norm_(model.parameters(), trial.clip["threshold"])
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    return trial.clip.name != "skip" or float(norm) <= trial.clip["threshold"]


def column(records: Records, trial: Trial, name: str) -> np.ndarray:
    return records.steps[name][records.steps["id"] == trial.id]


def value(records: Records, trial: Trial, name: str) -> float:
    return records.records[name][list(records.records["id"]).index(trial.id)]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("model", one_of(2, MODELS))
def test_accumulated_batches_are_clipped_as_one(model, accumulate, drop_last, assert_fastest):
    """90 examples: batches of 16 and a last one of 10, and fewer than `accumulate` of them at the end of an epoch."""
    trials = trials_of(model, accumulate=accumulate, drop_last=drop_last)
    records = engine.train(trials)
    if model != "looped":
        assert_fastest(records.records["engine"], records.records["engine_note"])
    x, y = parts()["train"]
    for trial in trials:
        net = oracle.initial_model(trial, datasets.load(CLASSES)).double().train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        losses, norms = [], []
        for batches in batches_of(trial, x, drop_last):
            for first in range(0, len(batches), accumulate):
                torch.manual_seed(1_000_003 * trial.seed + len(losses) + 1)
                together = batches[first : first + accumulate]
                examples = sum(len(batch) for batch in together)
                optimizer.zero_grad()
                total = 0.0
                for batch in together:
                    loss = F.cross_entropy(net(x[batch]), y[batch]) * len(batch) / examples
                    loss.backward()
                    total += loss.item()
                norms.append(float(torch.sqrt(sum((p.grad**2).sum() for p in net.parameters()))))
                if clip(trial, net):
                    optimizer.step()
                losses.append(total)
        np.testing.assert_allclose(column(records, trial, "train/loss"), losses, rtol=1e-9)
        np.testing.assert_allclose(column(records, trial, "grad_norm/pre"), norms, rtol=1e-9)
        weights = torch.cat([p.detach().flatten() for p in net.parameters()]).numpy()
        np.testing.assert_allclose(records.weights[trial.id], weights, rtol=1e-9, atol=1e-12)


def test_accumulated_batches_of_a_stream_are_drawn_one_by_one():
    stream = C("adding", length=6, **{"split.val": 20, "split.test": 20, "split.seed": 0})
    for batch_size, accumulate in ((5, 3), (15, 1)):
        train = Training(
            epochs=None, steps=6, batch_size=batch_size, accumulate=accumulate, loss=C("mse"), dtype="float64"
        )
        trial = Trial(stream, C("linear", bias=True), C("sgd", lr=0.01, momentum=0.0), train, ARMS[1], 3)
        records = engine.train([trial])
        net = oracle.initial_model(trial, datasets.load(stream)).double()
        source = oracle.Loop(trial, datasets.load(stream))._stream()
        for step in range(6):
            net.zero_grad()
            for x, y in (next(source) for _ in range(accumulate)):
                (F.mse_loss(net(x).reshape(y.shape), y) / accumulate).backward()
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 0.3)
            assert records.steps["grad_norm/pre"][step] == pytest.approx(float(norm), rel=1e-9)
            with torch.no_grad():
                for p in net.parameters():
                    p -= 0.01 * p.grad


@pytest.mark.parametrize("model", MODELS)
def test_the_average_of_the_weights_is_what_is_evaluated(model, assert_fastest):
    trials = trials_of(model, ema=0.8)
    records = engine.train(trials)
    if model != "looped":
        assert_fastest(records.records["engine"], records.records["engine_note"])
    plain = engine.train(trials_of(model))
    data = parts()
    x, y = data["train"]
    for trial, without in zip(trials, trials_of(model), strict=True):
        np.testing.assert_array_equal(column(records, trial, "train/loss"), column(plain, without, "train/loss"))
        net = oracle.initial_model(trial, datasets.load(CLASSES)).double().train()
        average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.8))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        step, curve = 0, []
        for batches in batches_of(trial, x):
            for batch in batches:
                step += 1
                torch.manual_seed(1_000_003 * trial.seed + step)
                optimizer.zero_grad()
                F.cross_entropy(net(x[batch]), y[batch]).backward()
                if clip(trial, net):
                    optimizer.step()
                average.update_parameters(net)
            with torch.no_grad():
                average.eval()
                curve.append(F.cross_entropy(average(data["val"][0]), data["val"][1]).item())
        mine = records.epochs["val/loss"][records.epochs["id"] == trial.id]
        np.testing.assert_allclose(mine, curve, rtol=1e-8)
        with torch.no_grad():
            expected = F.cross_entropy(average(data["test"][0]), data["test"][1]).item()
        assert value(records, trial, "test/loss") == pytest.approx(expected, rel=1e-8)
        weights = torch.cat([p.detach().flatten() for p in average.module.parameters()]).numpy()
        np.testing.assert_allclose(records.weights[trial.id], weights, rtol=1e-9, atol=1e-12)


def test_a_lane_that_stops_early_keeps_its_average():
    stop = C("val/loss", patience=1, min_delta=0.5)
    trials = trials_of(ema=0.8, early_stop=stop, epochs=6)
    records = engine.train(trials)
    again = engine.train(trials_of(ema=0.8, epochs=2))
    for trial, other in zip(trials, trials_of(ema=0.8, epochs=2), strict=True):
        assert value(records, trial, "stopped_epoch") == 2
        np.testing.assert_array_equal(records.weights[trial.id], again.weights[other.id])


def test_labels_are_smoothed_in_training_and_not_in_evaluation(assert_fastest):
    trials = trials_of(loss=C("cross_entropy", label_smoothing=0.1))
    records = engine.train(trials)
    assert_fastest(records.records["engine"], records.records["engine_note"])
    data = parts()
    x, y = data["train"]
    for trial in trials:
        net = oracle.initial_model(trial, datasets.load(CLASSES)).double().train()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for batch in (batch for batches in batches_of(trial, x) for batch in batches):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x[batch]), y[batch], label_smoothing=0.1)
            loss.backward()
            if clip(trial, net):
                optimizer.step()
            losses.append(loss.item())
        np.testing.assert_allclose(column(records, trial, "train/loss"), losses, rtol=1e-9)
        with torch.no_grad():
            expected = F.cross_entropy(net(data["test"][0]), data["test"][1]).item()
        assert value(records, trial, "test/loss") == pytest.approx(expected, rel=1e-8)


def test_options_that_were_added_later_change_no_id_at_their_default():
    trial = Trial(None, C("quadratic"), C("sgd", lr=0.1), Training(), C("none"), 0)
    added = Training(accumulate=1, ema=None)
    assert trial.id == Trial(None, C("quadratic"), C("sgd", lr=0.1), added, C("none"), 0).id
    for other in (Training(accumulate=2), Training(ema=0.9)):
        assert trial.id != Trial(None, C("quadratic"), C("sgd", lr=0.1), other, C("none"), 0).id
    assert trial.id == "501cdcfffa7dc4dd"


# Products in bfloat16

SEQUENCES = C("temporal_order", length=20, **{"split.val": 20, "split.test": 20, "split.seed": 0})
HALF = {
    "mlp": (CLASSES, C("mlp", hidden=(12,), activation="relu"), 1e-5),
    "cnn": (CLASSES, with_defaults("cnn"), 1e-5),
    "dropout": (CLASSES, C("tests.toys:with_dropout"), 1e-5),
    "batch norm": (CLASSES, C("tests.toys:with_batch_norm"), 2e-3),
    "resnet": (CLASSES, with_defaults("resnet"), 5e-3),
    "transformer": (SEQUENCES, with_defaults("transformer"), 5e-3),
    "lstm": (SEQUENCES, with_defaults("lstm"), 1e-3),
    "looped": (CLASSES, C("tests.toys:looks_at_numbers"), 1e-5),
}


@pytest.mark.parametrize("name", one_of(2, HALF))
def test_products_in_bfloat16_are_those_of_autocast(name, assert_fastest):
    """To the rounding of bfloat16, and where a model has products and elementwise operators only, to that of float32."""
    data, model, tolerance = HALF[name]
    steps = {"epochs": None, "steps": 8, "epoch_steps": 4 if data == SEQUENCES else None}
    train = Training(**steps, batch_size=16, loss=C("cross_entropy"), precision="bf16", metrics=(C("accuracy"),))
    trials = [Trial(data, model, C("sgd", lr=0.05, momentum=0.9), train, arm, seed) for seed in (1, 2) for arm in ARMS]
    records = engine.train(trials)
    if name != "looped":
        assert_fastest(records.records["engine"], records.records["engine_note"])
    loaded = datasets.load(data)
    for trial in trials:
        loop = oracle.Loop(trial, loaded)
        batches, losses = loop._batches(), []
        for step in range(8):
            x, y = next(batches)
            torch.manual_seed(1_000_003 * trial.seed + step + 1)
            loop.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                output = loop.model(x)
            loss = F.cross_entropy(output.float(), y)
            loss.backward()
            if clip(trial, loop.model):
                loop.optimizer.step()
            losses.append(loss.item())
        if engine.has_kernels("float32"):
            np.testing.assert_allclose(column(records, trial, "train/loss"), losses, rtol=tolerance)
        loop.model.eval()
        x, y = (torch.as_tensor(part) for part in loaded.test)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            output = loop.model(x.float() if x.is_floating_point() else x)
        assert value(records, trial, "test/loss") == pytest.approx(F.cross_entropy(output.float(), y).item(), rel=2e-2)


def test_weights_and_statistics_are_float32_at_half_precision():
    train = Training(epochs=2, batch_size=16, loss=C("cross_entropy"), precision="bf16", save_weights=True)
    trial = Trial(CLASSES, MODELS["mlp"], C("sgd", lr=0.1, momentum=0.0), train, ARMS[0], 1)
    records = engine.train([trial])
    weights = torch.as_tensor(records.weights[trial.id])
    assert weights.dtype == torch.float32 and not torch.equal(weights, weights.bfloat16().float())
    assert records.steps["grad_norm/pre"].dtype == np.float32
