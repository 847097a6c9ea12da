"""Augmented batches, beside plain loops typed from the documentation."""

from __future__ import annotations

import random
import textwrap

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clipbench import datasets, engine
from clipbench.compiler.library import found
from clipbench.core.trial import Component, Training, Trial
from clipbench.engine.chunk_training import ChunkTraining
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.engine.gradients.workspace_cache import WorkspaceCache
from clipbench.planning.build import prepare
from clipbench.plugins import augmentations, registry
from clipbench.plugins.losses import cross_entropy
from tests import toys
from tests.cli_helpers import invoke, records, train, write
from tests.engine.test_training_options import ARMS, clip, column
from tests.thinning import one_of

C = Component.of
DIGITS = {"rows": True, "limit": 90, "split.val": 0.2, "split.test": 0.2, "split.seed": 0, "standardize": False}
EPOCHS = 3


def _of_images(function):
    def of_images(outputs):
        return torch.nn.Sequential(torch.nn.Flatten(), function(64, outputs))

    return of_images


with_dropout, with_batch_norm, looks_at_numbers = map(
    _of_images, (toys.with_dropout, toys.with_batch_norm, toys.looks_at_numbers)
)
MODELS = {
    "mlp": C("mlp", hidden=(12,), activation="relu"),
    "dropout": C(f"{__name__}:with_dropout"),
    "batch norm": C(f"{__name__}:with_batch_norm"),
    "looped": C(f"{__name__}:looks_at_numbers"),
}


# The functions of the tests. The third draws from all global generators.
OWN = """
    import random

    import numpy as np
    import torch


    def swap(x, y, generator, p=0.5):
        other = torch.randperm(len(x), generator=generator)
        chosen = torch.rand(len(x), generator=generator) < p
        return torch.where(chosen[:, None, None], x[other], x), torch.where(chosen, y[other], y)


    def faint(x, low=0.5):
        scale = low + random.random() + np.random.random() + torch.rand(())
        return x * scale


    def own_noise(x):
        return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(random.getrandbits(30)))


    DRAW = np.random.default_rng()


    def undecided(x, generator):
        return x + DRAW.random()


    def smaller(x, generator):
        return x[..., 1:]


    def half(x, generator):
        return x, x


    def fails(x, generator):
        raise RuntimeError("no colours")
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def own(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(OWN))

    def component(name: str, **options: object) -> Component:
        source = registry.find("augmentation", f"./mine.py:{name}", tmp_path).source
        return C(f"./mine.py:{name}", source=source, folder=str(tmp_path), **options)

    return component


def trials_of(augment: Component | None, model: str = "mlp", arms=ARMS, **options: object) -> list[Trial]:
    data = C("digits", **DIGITS, **({"augment": augment} if augment else {}))
    options = {"epochs": EPOCHS, "batch_size": 16, "loss": C("cross_entropy"), "dtype": "float64", **options}
    train = Training(metrics=(C("accuracy"),), **options)
    return [Trial(data, MODELS[model], C("sgd", lr=0.1, momentum=0.9), train, arm, s) for s in (1, 2) for arm in arms]


def seed_all(number: int) -> None:
    torch.manual_seed(number % 2**63)
    random.seed(number % 2**63)
    np.random.seed(number % 2**32)


def plain_loop(trial: Trial, augment, batch_size: int | None = 16, accumulate: int = 1) -> list[float]:
    """As the documentation says it."""
    loaded = datasets.load(C("digits", **DIGITS))
    x, y = torch.tensor(loaded.train[0], dtype=torch.float64), torch.tensor(loaded.train[1])
    torch.manual_seed(trial.seed)
    plugin = registry.find("model", trial.model.name)
    sizes = {name: getattr(loaded, name) for name in plugin.given}
    model = plugin.function(**sizes, **trial.model.as_dict()).double().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches, augmenting = torch.Generator().manual_seed(trial.seed), torch.Generator().manual_seed(2**30 + trial.seed)
    losses, number = [], 0
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=batches) if batch_size else torch.arange(len(x))
        cut = torch.split(order, batch_size or len(x))
        for start in range(0, len(cut), accumulate):
            optimizer.zero_grad()
            step, examples = cut[start : start + accumulate], sum(map(len, cut[start : start + accumulate]))
            parts = []
            for rows in step:
                number += 1
                seed_all(2**30 + 1_000_003 * trial.seed + number)
                parts.append(augment(x[rows], y[rows], augmenting))
            seed_all(1_000_003 * trial.seed + len(losses) + 1)
            loss = 0.0
            for inputs, targets in parts:
                part = F.cross_entropy(model(inputs), targets) * len(inputs) / examples
                part.backward()
                loss += part.item()
            losses.append(loss)
            if clip(trial, model):
                optimizer.step()
    return losses


def test_every_augmentation_is_tested_here():
    assert set(registry.catalogue("augmentation")) == set(BUILT_IN)


BUILT_IN = {
    "flip": lambda x, y, generator: (augmentations.flip(x, generator), y),
    "shift": lambda x, y, generator: (augmentations.shift(x, generator, pixels=4), y),
    "jitter": lambda x, y, generator: (augmentations.jitter(x, generator), y),
    "mixup": lambda x, y, generator: augmentations.mixup(x, y, generator, 10),
}


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("model", one_of(2, MODELS))
def test_augmented_batches_are_those_of_a_plain_loop(model, name, assert_fastest):
    trials = trials_of(_of("augmentation", name), model)
    records = engine.train(trials)
    if model != "looped":
        assert_fastest(records.records["engine"], records.records["engine_note"])
    for trial in trials:
        expected = plain_loop(trial, BUILT_IN[name])
        np.testing.assert_allclose(column(records, trial, "train/loss"), expected, rtol=1e-6)


def _of(kind: str, name: str) -> Component:
    options = registry.find(kind, name).options.values()
    return C(name, **{option.name: option.default for option in options})


@pytest.mark.parametrize("how", ["small batches", "one batch", "accumulated", "looped"])
@pytest.mark.parametrize("name", ["swap", "faint"])
def test_own_augmentations_change_training_as_in_a_plain_loop(own, name, how):
    function = registry.find("augmentation", f"./mine.py:{name}", own(name).folder).function
    takes_y = name == "swap"
    options = {
        "one batch": {"batch_size": None, "epochs": EPOCHS},
        "accumulated": {"accumulate": 4},
    }.get(how, {})
    trials = trials_of(own(name), "looped" if how == "looped" else "mlp", **options)
    records = engine.train(trials)

    def augment(x, y, generator):
        return function(x, y, generator) if takes_y else (function(x), y)

    plain = {"batch_size": options.get("batch_size", 16), "accumulate": options.get("accumulate", 1)}
    for trial in trials:
        expected = plain_loop(trial, augment, **plain)
        np.testing.assert_allclose(column(records, trial, "train/loss"), expected, rtol=1e-6)


def test_without_compiled_kernels_augmented_training_is_the_same(own, monkeypatch):
    trials = trials_of(own("swap"))
    compiled = engine.train(trials)
    monkeypatch.setenv("CLIPBENCH_NATIVE", "0")
    monkeypatch.setattr(engine, "WORKSPACES", WorkspaceCache())
    found.cache_clear()
    try:
        mapped = engine.train(trials)
    finally:
        found.cache_clear()
    assert set(mapped.records["engine"]) == {"replay"}
    np.testing.assert_allclose(mapped.steps["train/loss"], compiled.steps["train/loss"], rtol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(7, 4), (5, 3, 4)])
def test_cross_entropy_takes_probabilities_as_torch_does(shape, smoothing):
    draw = torch.Generator().manual_seed(0)
    scores, target = torch.randn(shape, generator=draw), torch.rand(shape, generator=draw).softmax(-1)
    loss = cross_entropy(scores, target, label_smoothing=smoothing)
    expected = F.cross_entropy(scores.flatten(0, -2), target.flatten(0, -2), label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    with pytest.raises(ValueError, match="must be probabilities of at least two classes"):
        cross_entropy(scores, target[..., 0])


def test_only_training_batches_are_augmented():
    """A rate of 0 trains nothing, so that all parts are judged as without augmentation."""
    found = {}
    for augment in (None, C("jitter", std=50.0)):
        trials = [Trial(t.data, t.model, C("sgd", lr=0.0), t.train, t.clip, t.seed) for t in trials_of(augment)[:1]]
        records = engine.train(trials)
        found[augment] = {name: records.records[f"{name}/loss"][0] for name in ("train", "val", "test")}
        found[augment]["step"] = records.steps["train/loss"][0]
    plain, noisy = found.values()
    assert noisy["step"] > 2 * plain["step"]
    assert {k: noisy[k] for k in ("train", "val", "test")} == {k: plain[k] for k in ("train", "val", "test")}


def test_parts_of_a_batch_are_augmented_together():
    shards = C("norm", threshold=0.3, p=2.0, per="model", exclude=(), scope=C("shards", n=4))
    (trial, *_) = trials = trials_of(_of("augmentation", "flip"), arms=[shards])
    whole = engine.train(trials_of(_of("augmentation", "flip"), arms=[C("none")]))
    losses = engine.train(trials).steps["train/loss"]
    np.testing.assert_allclose(losses[0], whole.steps["train/loss"][0], rtol=1e-9)
    assert len(losses) and trial.data["augment"].name == "flip"


def test_a_trial_is_the_same_in_any_chunk_and_goes_on_after_it_was_saved():
    trials = trials_of(_of("augmentation", "shift"))
    together = engine.train(trials).steps["train/loss"]
    apart = np.concatenate([engine.train([trial]).steps["train/loss"] for trial in trials])
    np.testing.assert_array_equal(np.sort(together), np.sort(apart))
    workspace = Workspace(WorkspaceShape.of(trials, "cpu"), datasets.load(trials[0].data))
    saved: dict[str, torch.Tensor] = {}

    def keep(epoch: int, _: object) -> set[str]:
        saved.update(first.state.save() if epoch == 1 else {})
        return set()

    first = ChunkTraining(trials, workspace)
    whole = first.run(lambda done: None, keep).steps.copy()
    second = ChunkTraining(trials, workspace)
    second.state.load(saved)
    np.testing.assert_array_equal(second.run(lambda done: None).steps, whole)


def test_trials_without_augmentation_keep_their_ids(tmp_path):
    plain, said, other = (
        run_plan(tmp_path, text)
        for text in ("{name: digits}", "{name: digits, augment: null}", "{name: digits, augment: flip}")
    )
    assert plain == said
    assert not set(plain) & set(other)


def run_plan(tmp_path, data: str) -> list[str]:
    (tmp_path / "e.yaml").write_text(
        f"name: e\ndata: {data}\nmodel: linear\noptimizer: {{name: sgd, lr: 0.1}}\nclip: [none]\nseeds: 2\n"
    )
    return [trial.id for cohort in prepare(str(tmp_path / "e.yaml")).cohorts for trial in cohort.trials]


WRONG = {
    "smaller": "must keep the shape of inputs, (16, 8, 8), got (16, 8, 7)",
    "half": "must return x as a tensor, got 2 values",
    "fails": "fails on inputs (16, 8, 8): RuntimeError: no colours",
    "undecided": "returns different examples for the same generator. Draw all random numbers from `generator`",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_an_augmentation_must_not_do_is_said_at_its_place(own, tmp_path, name):
    own(name)
    path = write(
        tmp_path, data={"name": "digits", "rows": True, "augment": f"./mine.py:{name}"}, train={"batch_size": 16}
    )
    (tmp_path / "mine.py").write_text(textwrap.dedent(OWN))
    result = invoke("check", path)
    assert result.exit_code == 2
    message = " ".join(result.stderr.split())
    assert "small.yaml:5:12: data.augment: the data cannot be augmented" in message and WRONG[name] in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("flp", "unknown augmentation 'flp'. Did you mean `flip`?"),
        ({"name": "flip", "q": 1}, "flip has no option 'q'."),
        ({"name": "flip", "p": 2}, "data.augment.p: must be less than or equal to 1, got 2."),
        ({"p": 2}, "this augmentation has no `name`."),
    ],
)
def test_mistakes_in_the_option_are_said_with_what_is_near(tmp_path, augment, message):
    result = invoke("check", write(tmp_path, data={"name": "digits", "augment": augment}))
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_augmentations_are_an_axis_of_the_experiment(tmp_path):
    """A column for the augmentation and each of its options; the resolved file is read back to the same trials."""
    augment = [None, "flip", {"name": "jitter", "std": [0.1, 0.2]}]
    path = write(
        tmp_path, data={"name": "digits", "rows": True, "limit": 60, "augment": augment}, clip=["none"], seeds=2
    )
    train(path, tmp_path / "results")
    found = records(tmp_path / "results" / "small").reset_index()
    assert len(found) == 8
    assert sorted(found["data.augment"].fillna("null")) == ["flip"] * 2 + ["jitter"] * 4 + ["null"] * 2
    assert set(found["data.augment.std"].dropna()) == {0.1, 0.2}
    again = invoke(
        "run", tmp_path / "results" / "small" / "experiment.yaml", "--results", tmp_path / "results", "--dry-run"
    )
    assert again.exit_code == 0 and "8 of 8" in " ".join(again.output.split()), again.output
