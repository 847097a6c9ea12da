"""PyTorch data sets, beside plain loops with a `DataLoader` typed from the documentation."""

from __future__ import annotations

import random
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from clipbench import datasets, engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.datasets import DataProblem, NumberedDataset, read_options
from clipbench.engine.chunk_training import ChunkTraining
from clipbench.engine.gradients.workspace import Workspace, WorkspaceShape
from clipbench.engine.gradients.workspace_cache import WorkspaceCache
from tests.cli_helpers import processes, records, started, train, until, write
from tests.engine.test_training_options import ARMS, clip, column
from tests.thinning import one_of

C = Component.of
EPOCHS = 3
HERE = __name__


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> None:
    """Workspaces are not reused: data sets that only differ in how they are read are equal."""
    torch.set_num_threads(1)
    monkeypatch.setattr(engine, "WORKSPACES", WorkspaceCache())


def points(examples: int = 90, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(examples, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


class Points(Dataset):
    """Items of Python and numpy types, as people write them."""

    def __init__(self, examples: int = 90, seed: int = 0) -> None:
        self.x, self.y = points(examples, seed)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, number: int):
        return self.x[number].numpy(), int(self.y[number])


class Shaken(Points):
    """Random transforms with the three global generators."""

    def __getitem__(self, number: int):
        x, y = super().__getitem__(number)
        return (x + random.random() + np.random.rand(6) + torch.rand(6).numpy()).astype(np.float32), y


class PngFolder(Dataset):
    """A folder for each class, as torchvision's ImageFolder reads it."""

    def __init__(self, folder: str) -> None:
        self.files = sorted(Path(folder).glob("*/*.png"))
        self.targets = [int(file.parent.name) for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int):
        pixels = np.asarray(Image.open(self.files[number]), np.float32) / 255
        return torch.from_numpy(pixels).flatten(), self.targets[number]


class Endless(IterableDataset):
    """Ends after `examples` examples, in an order of its own."""

    def __init__(self, examples: int = 70, known: bool = False) -> None:
        self.examples = examples
        if known:
            self.__class__ = Counted

    def __iter__(self):
        x, y = points(self.examples)
        for number in torch.randperm(self.examples).tolist():
            yield x[number] + 0.1 * np.random.rand() + 0.1 * random.random(), y[number]


class Counted(Endless):
    def __len__(self) -> int:
        return self.examples


# Data functions


def of_items():
    return Points()


def of_tensors():
    return TensorDataset(*points())


def of_subsets():
    return ConcatDataset([Subset(TensorDataset(*points()), range(45)), Subset(Points(), list(range(45, 90)))])


def in_parts():
    return {"train": Points(), "val": Points(30, 1), "test": TensorDataset(*points(30, 2))}


def of_shaken():
    return {"train": Shaken(), "val": Points(30, 1), "test": Shaken(30, 2)}


def of_files(path: str):
    return PngFolder(path)


def of_passes(known: bool = False, examples: int = 70):
    return {"train": Endless(examples, known), "val": Points(30, 1), "test": Endless(40)}


def data_of(name: str, aside: dict[str, object] | None = None, **options: object) -> Component:
    options = {"split.val": 0.2, "split.test": 0.2, "split.seed": 0, "standardize": False, **options}
    component = C(f"{HERE}:{name}", **options)
    object.__setattr__(component, "aside", tuple((f"read.{key}", value) for key, value in (aside or {}).items()))
    return component


def trials_of(data: Component, model: Component | None = None, **options: object) -> list[Trial]:
    options = {"epochs": EPOCHS, "batch_size": 16, "loss": C("cross_entropy"), "dtype": "float64", **options}
    train = Training(metrics=(C("accuracy"),), **options)
    model = model or C("mlp", hidden=(12,), activation="relu")
    return [Trial(data, model, C("sgd", lr=0.1, momentum=0.9), train, arm, s) for s in (1, 2) for arm in ARMS]


def seed_all(number: int) -> None:
    torch.manual_seed(number % 2**63)
    random.seed(number % 2**63)
    np.random.seed(number % 2**32)


class Order:
    """The batches of a plain `DataLoader`, one permutation per epoch."""

    def __init__(self, examples: int, seed: int, size: int = 16) -> None:
        self.examples, self.size, self.generator = examples, size, torch.Generator().manual_seed(seed)

    def __iter__(self):
        yield from (
            rows.tolist() for rows in torch.split(torch.randperm(self.examples, generator=self.generator), self.size)
        )


class Seeded(Dataset):
    """Whole batches; what is random in them is decided by the number of the batch."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed, self.number = dataset, seed, 0

    def __getitem__(self, rows: list[int]):
        self.number += 1
        seed_all(2**31 + 1_000_003 * self.seed + self.number)
        return torch.utils.data.default_collate([self.dataset[row] for row in rows])


def losses_of(trial: Trial, batches, model: torch.nn.Module | None = None) -> list[float]:
    torch.manual_seed(trial.seed)
    model = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x.double()), y)
        loss.backward()
        losses.append(loss.item())
        if clip(trial, model):
            optimizer.step()
    return losses


def batches_of(trial: Trial, dataset: Dataset):
    seeded = Seeded(dataset, trial.seed)
    loader = DataLoader(seeded, batch_size=None, sampler=Order(len(dataset), trial.seed))
    for _ in range(EPOCHS):
        yield from loader


HOW = {
    "in memory": {"in_memory": True},
    "read": {"in_memory": False},
    "read by workers": {"in_memory": False, "workers": 2},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", one_of(2, ["in_parts", "of_items", "of_tensors", "of_subsets"]))
def test_a_data_set_is_read_as_by_a_plain_data_loader(name, how, assert_fastest):
    data = data_of(name, HOW[how])
    loaded = datasets.load(data)
    assert loaded.in_memory == (how == "in memory")
    records = engine.train(trials_of(data))
    assert_fastest(records.records["engine"], records.records["engine_note"])
    if name == "in_parts":
        dataset: Dataset = Points()
    else:  # the split of arrays, stratified where the targets are known
        x, y = points()
        kept, _ = _split(y, known=how == "in memory" or name == "of_tensors")
        dataset = TensorDataset(x[kept], y[kept])
    for trial in trials_of(data):
        expected = losses_of(trial, batches_of(trial, dataset))
        np.testing.assert_allclose(column(records, trial, "train/loss"), expected, rtol=1e-6)


def _split(y: torch.Tensor, known: bool) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    classes = (lambda rows: y[rows]) if known else lambda rows: None
    every = np.arange(len(y))
    kept, test = train_test_split(every, test_size=round(0.2 * len(y)), random_state=0, stratify=classes(every))
    train, _ = train_test_split(kept, test_size=round(0.2 * len(y)), random_state=0, stratify=classes(kept))
    return train, test


@pytest.mark.parametrize("how", ["read", "read by workers"])
@pytest.mark.parametrize("accumulate", one_of(2, [2, 1]))
def test_random_transforms_are_decided_by_seed_and_batch(how, accumulate):
    """They are the same for all arms of a seed, in any process; such a data set is never in memory."""
    data = data_of("of_shaken", {**HOW[how], "in_memory": None})
    loaded = datasets.load(data)
    assert not loaded.in_memory
    x, y = points(30, 2)
    assert loaded.test[0].shape == x.shape and (loaded.test[1] == y.numpy()).all()
    trials = trials_of(data, accumulate=accumulate)
    records = engine.train(trials)
    for trial in trials:
        if accumulate == 1:
            expected = losses_of(trial, batches_of(trial, Shaken()))
            np.testing.assert_allclose(column(records, trial, "train/loss"), expected, rtol=1e-6)
    other = engine.train(trials_of(data_of("of_shaken"), accumulate=accumulate))
    np.testing.assert_array_equal(records.steps["train/loss"], other.steps["train/loss"])


def test_images_in_files_are_read_in_memory_or_by_batch(tmp_path):
    draw = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / str(label)).mkdir()
        for number in range(20):
            pixels = draw.integers(0, 80, (5, 5)) + 80 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / str(label) / f"{number}.png")
    found = []
    for how in HOW.values():
        data = data_of("of_files", how, path=str(tmp_path))
        assert datasets.load(data).examples == {"train": 36, "val": 12, "test": 12}
        records = engine.train(trials_of(data))
        found.append((records.steps["train/loss"], records.records["val/accuracy"], records.records["test/loss"]))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("model", ["tests.toys:with_dropout", "tests.toys:looks_at_numbers"])
def test_models_that_draw_or_are_looped_train_alike_on_what_is_read(model):
    found = [engine.train(trials_of(data_of("of_tensors", how), C(model))).steps["train/loss"] for how in HOW.values()]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_an_augmented_data_set_is_augmented_alike_in_memory_and_read():
    augment = C("jitter", std=0.1)
    found = [engine.train(trials_of(data_of("of_tensors", how, augment=augment))) for how in HOW.values()]
    plain = engine.train(trials_of(data_of("of_tensors")))
    np.testing.assert_array_equal(found[0].steps["train/loss"], found[1].steps["train/loss"])
    np.testing.assert_array_equal(found[0].steps["train/loss"], found[2].steps["train/loss"])
    assert (found[0].steps["train/loss"] != plain.steps["train/loss"]).all()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("known", [False, True])
def test_passes_over_an_iterable_data_set_follow_one_another(workers, known):
    """70 examples give 4 batches of 16; the rest of a pass is left out, and the next pass has other random numbers."""
    data = data_of("of_passes", {"workers": workers}, known=known)
    options = {} if known else {"epoch_steps": 5}
    trials = trials_of(data, **options)
    records = engine.train(trials)
    steps = EPOCHS * (4 if known else 5)

    def batches(trial: Trial):
        for number in range(1, 5):
            seed_all(2**31 + 1_000_003 * trial.seed + number)
            yield from list(DataLoader(Endless(), batch_size=16, drop_last=True, generator=torch.Generator()))

    for trial in trials:
        expected = losses_of(trial, list(batches(trial))[:steps])
        np.testing.assert_allclose(column(records, trial, "train/loss"), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["of_passes", "of_shaken"])
def test_what_is_read_goes_on_after_a_training_was_saved(name):
    data = data_of(name)
    trials = trials_of(data, **({"epoch_steps": 5} if name == "of_passes" else {}))
    workspace = Workspace(WorkspaceShape.of(trials, "cpu"), datasets.load(data))
    saved: dict[str, torch.Tensor] = {}

    def keep(epoch: int, _: object) -> set[str]:
        saved.update(first.state.save() if epoch == 1 else {})
        return set()

    first = ChunkTraining(trials, workspace)
    whole = first.run(lambda done: None, keep).steps.copy()
    second = ChunkTraining(trials, workspace)
    second.state.load(saved)
    np.testing.assert_array_equal(second.run(lambda done: None).steps, whole)


# What cannot be used


class Wrong(Points):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def __getitem__(self, number: int):
        x, y = super().__getitem__(number)
        match self.how:
            case "mapping":
                return {"image": x, "label": y}
            case "triple":
                return x, y, number
            case "alone":
                return x
            case "text":
                return x, "cat"
            case "pillow":
                return Image.new("L", (4, 4)), y
            case "ragged":
                return x[: 6 - (number == 40)], y
            case "fails":
                return (x, y) if number != 40 else x[60]
            case "own":
                return x + np.random.default_rng().random(), y


def wrong(how: str):
    return Wrong(how)


MESSAGES = {
    "mapping": r"example 0 is a mapping of 'image', 'label'. Return a pair",
    "triple": r"example 0 must be a pair \(x, y\), got 3 values",
    "alone": r"example 0 must be a pair \(x, y\), got ndarray",
    "text": r"the target of example 0 must be a tensor, an array or a number, got str",
    "pillow": r"inputs of example 0 is an image of Pillow. Convert it to a tensor",
    "ragged": r"inputs of example 40 has the shape \(5,\), and that of example 0 \(6,\)",
    "fails": r"example 40 cannot be read: IndexError: index 60 is out of bounds",
    "own": r"is not the same when it is read again with the same seed",
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", MESSAGES)
def test_items_that_cannot_be_used_are_named(how, workers):
    with pytest.raises(DataProblem, match=MESSAGES[how]) as raised:
        datasets.read(data_of("wrong", {"workers": workers}, how=how))
    assert "Traceback" not in str(raised.value)


def late(how: str):
    return {"train": Wrong(how), "val": Points(30, 1)}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["fails"])
def test_an_item_that_fails_in_training_fails_its_trials_with_its_number(how, workers, monkeypatch):
    data = data_of("late", {"workers": workers, "in_memory": False}, how=how)
    monkeypatch.setattr("clipbench.datasets.unloaded.SHOWN", 8)  # the item is not among those that are looked at
    with pytest.raises(DataProblem, match="example 40 cannot be read: IndexError"):
        engine.train(trials_of(data))


REFUSED = {
    "standardize": ("of_items", {"standardize": True}, "standardize needs all training examples in memory"),
    "corrupt": ("of_items", {"corrupt.noise": 0.1}, "corrupt.noise needs all training examples in memory"),
    "resize": ("of_items", {"resize": 3}, "resize needs all training examples in memory"),
    "limit": ("of_passes", {"limit": 10}, "limit is not supported for an IterableDataset"),
    "folds": ("in_parts", {"folds": 3, "fold": 0}, "folds are not supported for data that come in parts"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_need_all_examples_are_refused(case):
    name, options, message = REFUSED[case]
    with pytest.raises(DataProblem, match=message):
        datasets.read(data_of(name, {"in_memory": False} if name != "of_passes" else {}, **options))


def bare_passes():
    return Endless()


class Itself(IterableDataset):
    def __iter__(self):
        return self

    def __next__(self):
        return torch.zeros(6), 0


def of_itself():
    return {"train": Itself()}


def of_two_workers():
    return {"train": Endless()}


def test_an_iterable_data_set_that_cannot_be_used_is_refused():
    for name, aside, message in (
        ("bare_passes", {}, 'cannot be split. Return {"train": ..., "val": ..., "test": ...}, or write split'),
        ("of_itself", {}, "Write `__iter__` as a generator function"),
        ("of_two_workers", {"workers": 2}, "Write read: {workers: 1}"),
    ):
        with pytest.raises(DataProblem) as raised:
            datasets.read(data_of(name, aside))
        assert message in str(raised.value)
    data = data_of("of_passes", examples=10)
    with pytest.raises(DataProblem, match="a pass over the IterableDataset has less than a batch of 16 examples"):
        engine.train(trials_of(data, epoch_steps=5))


def test_the_limit_on_memory_decides_whether_examples_are_read_once(monkeypatch):
    """90 examples of 6 numbers in float32 and a class in int64 take 2,880 bytes."""
    monkeypatch.setattr(read_options, "MOST_BYTES", 2880)
    assert datasets.read(data_of("of_items")).in_memory
    monkeypatch.setattr(read_options, "MOST_BYTES", 2879)
    assert isinstance(datasets.read(data_of("of_items")), NumberedDataset)
    assert datasets.read(data_of("of_items", {"in_memory": True})).in_memory


def test_options_of_reading_change_neither_id_nor_label(tmp_path):
    from clipbench.planning.build import prepare

    def ids(data: str) -> list[str]:
        text = f"name: e\ndata: {data}\nmodel: linear\noptimizer: {{name: sgd, lr: 0.1}}\nclip: [none]\nseeds: 2\n"
        (tmp_path / "e.yaml").write_text(text)
        return [trial.id for cohort in prepare(str(tmp_path / "e.yaml")).cohorts for trial in cohort.trials]

    plain = ids(f'{{name: "{HERE}:of_items"}}')
    assert plain == ids(f'{{name: "{HERE}:of_items", read: {{workers: 2, prefetch: 4, in_memory: true}}}}')


COMMANDS = """
    import os
    from pathlib import Path

    from tests.engine.test_torch_data import Endless, Points, Shaken

    HERE = Path(__file__).parent


    class Watched(Shaken):
        def __getitem__(self, number):
            (HERE / f"read-{os.getpid()}").touch()
            return super().__getitem__(number)


    def photos():
        return {"train": Watched(), "val": Points(30, 1), "test": Points(30, 2)}


    def passes():
        return {"train": Endless(), "val": Points(30, 1), "test": Points(30, 2)}
"""


@pytest.mark.parametrize(("name", "workers"), [("photos", 2), pytest.param("passes", 1, marks=pytest.mark.slow)])
def test_the_command_reads_with_worker_processes_and_gets_the_same_numbers(tmp_path, name, workers):
    found = []
    for number in (0, workers):
        folder = tmp_path / str(number)
        data = {"name": f"./own.py:{name}", "read": {"workers": number}}
        path = write(folder, data=data, clip=["none", {"name": "norm", "threshold": 0.5}], seeds=2)
        (folder / "own.py").write_text(textwrap.dedent(COMMANDS))
        train(path, folder / "results", "--workers", "2")
        found.append(records(folder / "results" / "small"))
        read_in = {file.name for file in folder.glob("read-*")}
        if name == "photos":  # by the command, which looks at the data first, by its workers, or by workers of these
            assert len(read_in) > (4 if number else 1)
    assert len(found[0]) == 4
    for measure in ("val/loss", "test/loss"):
        np.testing.assert_array_equal(found[0].sort_values("seed")[measure], found[1].sort_values("seed")[measure])


SLOW = """
    import os
    import time
    from pathlib import Path

    from torch.utils.data import get_worker_info

    from tests.engine.test_torch_data import Points

    HERE = Path(__file__).parent


    class Slow(Points):
        def __getitem__(self, number):
            if get_worker_info() is not None:
                (HERE / f"reader-{os.getpid()}-{os.getppid()}").touch()
                time.sleep(0.05)
            return super().__getitem__(number)


    def slow():
        return {"train": Slow(), "val": Points(30, 1)}
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="no /proc")
def test_no_process_that_reads_outlives_a_killed_command(tmp_path):
    """A `DataLoader`'s workers look every five seconds whether the process that started them is there."""
    data = {"name": "./own.py:slow", "read": {"workers": 2, "in_memory": False}}
    path = write(tmp_path, data=data, clip=["none"], seeds=2, train={"epochs": 200})
    (tmp_path / "own.py").write_text(textwrap.dedent(SLOW))
    with started(
        "run", path, "--results", tmp_path / "results", "--no-mlflow", "--workers", "1", cwd=Path.cwd()
    ) as run:
        begun = lambda: [f.name.split("-") for f in tmp_path.glob("reader-*")]  # noqa: E731
        until(lambda: any(int(parent) != run.pid for _, _, parent in begun()))  # the command has tried it itself
        readers = {int(reader) for _, reader, parent in begun() if int(parent) != run.pid}
        assert readers <= set(processes(run.mark))
        run.kill()
        until(lambda: not processes(run.mark), seconds=20)
