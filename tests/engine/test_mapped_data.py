"""Arrays and tensors that are mapped to memory from files: only the examples of a batch are read."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from clipbench import datasets, engine
from clipbench.core.trial import Component, Training, Trial
from clipbench.datasets import DataProblem, NumberedDataset, read_options
from clipbench.datasets.opened import is_mapped
from clipbench.engine.gradients.workspace_cache import WorkspaceCache
from tests.cli_helpers import invoke, records, write
from tests.engine.test_training_options import ARMS, clip, column

C = Component.of
EPOCHS = 2


@pytest.fixture(autouse=True)
def fresh(monkeypatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(engine, "WORKSPACES", WorkspaceCache())


@pytest.fixture
def folder(tmp_path):
    draw = np.random.default_rng(0)
    x = draw.standard_normal((120, 5)).astype(np.float32)
    y = ((x[:, 0] > 0).astype(np.uint8) + (x[:, 1] > 0)).astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    x.tofile(tmp_path / "x.bin")
    y.tofile(tmp_path / "y.bin")
    return tmp_path


# Data functions


def of_npy(path: str):
    return np.load(f"{path}/x.npy", mmap_mode="r"), np.load(f"{path}/y.npy", mmap_mode="r")


def of_memmap(path: str):
    x = np.memmap(f"{path}/x.bin", np.float32, "r", shape=(120, 5))
    return x, np.memmap(f"{path}/y.bin", np.uint8, "r")[:]


def of_tensors(path: str):
    x = torch.from_file(f"{path}/x.bin", shared=True, size=600, dtype=torch.float32).view(120, 5)
    return x, torch.from_file(f"{path}/y.bin", shared=True, size=120, dtype=torch.uint8)


def of_private_tensors(path: str):
    """torch does not say that these are mapped; `in_memory: false` does."""
    x = torch.from_file(f"{path}/x.bin", shared=False, size=600, dtype=torch.float32).view(120, 5)
    return x, torch.from_file(f"{path}/y.bin", shared=False, size=120, dtype=torch.uint8)


def of_copies(path: str):
    return np.load(f"{path}/x.npy"), np.load(f"{path}/y.npy")


def data_of(name: str, folder: Path, in_memory: bool | None = None, **options: object) -> Component:
    options = {"split.val": 0.2, "split.test": 0.2, "split.seed": 0, "standardize": False, **options}
    component = C(f"{__name__}:{name}", path=str(folder), **options)
    object.__setattr__(component, "aside", (("read.in_memory", in_memory),))
    return component


def trials_of(data: Component, **options: object) -> list[Trial]:
    options = {"epochs": EPOCHS, "batch_size": 16, "loss": C("cross_entropy"), "dtype": "float64", **options}
    train = Training(metrics=(C("accuracy"),), **options)
    model = C("mlp", hidden=(12,), activation="relu")
    return [Trial(data, model, C("sgd", lr=0.1, momentum=0.9), train, arm, s) for s in (1, 2) for arm in ARMS]


@pytest.mark.parametrize("name", ["of_npy", "of_memmap", "of_tensors", "of_private_tensors"])
def test_mapped_data_train_to_the_numbers_of_copied_ones(name, folder, assert_fastest):
    """Stratified alike, too: the classes are read. And as a plain loop trains on them."""
    copied = engine.train(trials_of(data_of("of_copies", folder)))
    for in_memory in (True, False):
        data = data_of(name, folder, in_memory)
        assert datasets.load(data).in_memory == in_memory
        found = engine.train(trials_of(data))
        assert_fastest(found.records["engine"], found.records["engine_note"])
        np.testing.assert_array_equal(found.steps["train/loss"], copied.steps["train/loss"])
        np.testing.assert_array_equal(found.records["val/loss"], copied.records["val/loss"])
    x, y = (torch.as_tensor(part) for part in datasets.load(data_of("of_copies", folder)).train)
    for trial in trials_of(data):
        torch.manual_seed(trial.seed)
        model = torch.nn.Sequential(torch.nn.Linear(5, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3)).double()
        optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), []
        batches = torch.Generator().manual_seed(trial.seed)
        for _ in range(EPOCHS):
            for rows in torch.split(torch.randperm(len(x), generator=batches), 16):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x[rows].double()), y[rows])
                loss.backward()
                losses.append(loss.item())
                if clip(trial, model):
                    optimizer.step()
        np.testing.assert_allclose(column(found, trial, "train/loss"), losses, rtol=1e-6)


def test_views_of_files_are_known_from_copies(folder):
    x, y = of_memmap(folder)
    assert is_mapped(x) and is_mapped(y) and is_mapped(np.asarray(x)[3:].reshape(-1)) and is_mapped(x.T)
    assert not is_mapped(np.array(x)) and not is_mapped(x + 0) and not is_mapped(x.tolist())
    assert is_mapped(of_tensors(folder)[0]) and not is_mapped(of_tensors(folder)[0].clone())


def test_folds_and_limits_choose_the_same_examples(folder):
    for options in ({"folds": 3, "fold": 1}, {"limit": 40}):
        copied, mapped = (
            datasets.read(data_of(name, folder, in_memory, **options))
            for name, in_memory in (("of_copies", None), ("of_npy", False))
        )
        assert mapped.examples == copied.examples
        for name in ("train", "val", "test"):
            for one, other in zip(getattr(mapped, name), getattr(copied, name), strict=True):
                np.testing.assert_array_equal(one, other)


def test_what_takes_more_than_the_limit_stays_in_the_file(folder, monkeypatch):
    """120 examples of 5 numbers in float32 and a class in int64 take 3,360 bytes."""
    monkeypatch.setattr(read_options, "MOST_BYTES", 3360)
    assert datasets.read(data_of("of_npy", folder)).in_memory
    monkeypatch.setattr(read_options, "MOST_BYTES", 3359)
    assert isinstance(datasets.read(data_of("of_npy", folder)), NumberedDataset)


def test_values_that_cannot_be_trained_on_are_said_when_they_are_read(folder):
    x = np.load(folder / "x.npy", mmap_mode="r+")
    x[:, 2] = np.nan
    x.flush()
    with pytest.raises(DataProblem, match="the inputs of the test part contain NaN"):
        datasets.read(data_of("of_npy", folder, False))
    with pytest.raises(DataProblem, match="the inputs of a batch contain NaN"):
        engine.train(trials_of(data_of("of_npy", folder, False, **{"split.val": 0.0, "split.test": 0.0})))


def test_full_batches_are_refused_with_the_way_out(folder, tmp_path):
    (tmp_path / "own.py").write_text("from tests.engine.test_mapped_data import of_npy\n")
    data = {"name": "./own.py:of_npy", "path": str(folder), "read": {"in_memory": False}}
    result = invoke("check", write(tmp_path, data=data, train={"batch_size": "full"}))
    assert result.exit_code == 2
    message = " ".join(result.stderr.split())
    assert "train.batch_size: full batches need all examples in memory. Write a number of examples." in message


MEASURED = """
    import json
    import sys

    import numpy as np
    import torch

    from clipbench import datasets, engine
    from clipbench.core.trial import Component, Training, Trial

    C = Component.of


    def anonymous():
        # Memory that is not that of files, in bytes.
        lines = open("/proc/self/status").read().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


    torch.set_num_threads(1)
    data = C("mapped_large:large", path=sys.argv[1], **{"split.val": 0.001, "split.test": 0.001, "split.seed": 0})
    object.__setattr__(data, "aside", (("read.in_memory", False),))
    small = C("digits", limit=100, standardize=False, **{"split.val": 0.2, "split.test": 0.2, "split.seed": 0})
    train = Training(epochs=None, steps=40, batch_size=16, loss=C("cross_entropy"), metrics=(C("accuracy"),))
    of = lambda data: Trial(data, C("linear"), C("sgd", lr=0.1, momentum=0.0), train, C("none"), 1)
    engine.train([of(small)])  # what the engine takes itself
    before = anonymous()
    losses = engine.train([of(data)]).steps["train/loss"]
    print(json.dumps({"grown": anonymous() - before, "losses": losses.tolist(), "train": datasets.load(data).size}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.slow
def test_a_file_larger_than_the_limit_is_not_copied_whole(tmp_path):
    """2 GiB of inputs, in a file with holes; the process grows by a twentieth of it at most."""
    examples, width = 2**19, 2**10
    with (tmp_path / "x.bin").open("wb") as file:
        file.truncate(4 * examples * width)
    (np.arange(examples) % 3).astype(np.uint8).tofile(tmp_path / "y.bin")
    (tmp_path / "mapped_large.py").write_text(
        "import numpy as np\n\n\ndef large(path):\n"
        f"    x = np.memmap(path + '/x.bin', np.float32, 'r', shape=({examples}, {width}))\n"
        "    return x, np.memmap(path + '/y.bin', np.uint8, 'r')\n"
    )
    (tmp_path / "measured.py").write_text(textwrap.dedent(MEASURED))
    environment = {"PYTHONPATH": f"{Path.cwd()}:{tmp_path}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, tmp_path / "measured.py", tmp_path],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["train"] == examples - 2 * round(examples * 0.001)
    assert len(found["losses"]) == 40 and np.isfinite(found["losses"]).all()
    assert found["grown"] < 4 * examples * width / 20


# Tokens of a language model

TOKENS = '''
    from pathlib import Path

    import numpy as np
    import torch


    def windows(generator, batch_size: int, part: str, yaml_folder: str, length: int = 8):
        """Windows of `length` tokens at random positions of train.bin or val.bin; the targets are the next tokens."""
        tokens = np.memmap(Path(yaml_folder) / ("train.bin" if part == "train" else "val.bin"), np.uint16, "r")
        starts = torch.randint(len(tokens) - length, (batch_size,), generator=generator).numpy()
        both = tokens[starts[:, None] + np.arange(length + 1)].astype(np.int64)
        return both[:, :-1], both[:, 1:]
'''


def test_windows_of_a_token_file_are_drawn_from_the_seed(tmp_path):
    draw = np.random.default_rng(0)
    for name, size in (("train", 5000), ("val", 800)):
        tokens = draw.integers(0, 11, size) if name == "train" else np.full(size, 10)
        tokens.astype(np.uint16).tofile(tmp_path / f"{name}.bin")
    changes = {
        "data": {"name": "./tokens.py:windows", "split": {"val": 40, "test": 0}},
        "model": {"name": "rnn", "hidden": 6},
        "train": {"steps": 6, "batch_size": 4, "dtype": "float64"},
        "clip": ["none", {"name": "norm", "threshold": 0.5}],
        "seeds": [3],
        "report": {"metric": "val/accuracy"},
    }
    path = write(tmp_path, **changes)
    (tmp_path / "tokens.py").write_text(textwrap.dedent(TOKENS))
    result = invoke("run", path, "--results", tmp_path / "results", "--no-mlflow")
    assert result.exit_code == 0, result.stderr
    tokens, generator = np.fromfile(tmp_path / "train.bin", np.uint16), torch.Generator().manual_seed(3)
    starts = torch.randint(len(tokens) - 8, (4,), generator=generator).tolist()
    x = torch.tensor(np.stack([tokens[s : s + 8] for s in starts]).astype(np.int64))
    y = torch.tensor(np.stack([tokens[s + 1 : s + 9] for s in starts]).astype(np.int64))
    from clipbench.plugins.models.sequence_models import rnn

    torch.manual_seed(3)
    model = rnn(inputs=8, outputs=11, tokens=11, every_step=True, hidden=6).double()
    steps = pd.read_parquet(tmp_path / "results" / "small" / "steps")
    first = steps[steps["step"] == 1]["train/loss"].to_numpy()
    expected = F.cross_entropy(model(x).flatten(0, -2), y.flatten()).item()
    np.testing.assert_allclose(first, expected, rtol=1e-6)
    assert len(records(tmp_path / "results" / "small")) == 2
