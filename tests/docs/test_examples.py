"""Code blocks of the pages are valid, and do what the pages say."""

import re
from collections import Counter
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import clipbench
from clipbench import config
from tests import pages
from tests.cli_helpers import train
from tests.pages import blocks

BASE = {"data": "digits", "model": "mlp", "optimizer": "sgd", "clip": ["none"], "seeds": 2}


@pytest.fixture
def examples(tmp_path):
    """A folder with every file that the pages show."""
    for block in blocks("yaml") + blocks("python"):
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
    for name in re.findall(r"\bpath: ([\w.]+)", pages.everything()):
        (tmp_path / name).touch()  # files of the reader's
    draw = np.random.default_rng(0)
    for name in ("train", "val"):
        draw.integers(0, 20, 2000).astype(np.uint16).tofile(tmp_path / f"{name}.bin")
    for number in range(40):
        file = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (16, 16)).astype(np.uint8)).save(file)
    return tmp_path


def test_every_file_that_is_shown_has_a_name_of_its_own():
    names = Counter(block.file for block in blocks("yaml") + blocks("python") if block.file)
    assert len(names) > 5
    assert max(names.values()) == 1, names


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.file or block.text.split("\n")[0][:30])
def test_every_yaml_block_is_valid(block, examples):
    written = yaml.safe_load(block.text)
    path = examples / (block.file or "block.yaml")
    alone = "model" in written or "script" in written.get("train", {})
    path.write_text(yaml.safe_dump(written if alone else BASE | written), encoding="utf-8")
    assert config.load(path).size > 0


@pytest.mark.parametrize("name", [block.file for block in blocks("yaml") if block.file])
def test_every_example_trains(name, examples, monkeypatch):
    monkeypatch.chdir(examples)
    train(name, "results", "--workers", "1", "--seeds", "2")
    experiment = config.load(examples / name, seeds=2)
    records = pd.read_parquet(examples / "results" / experiment.name / "records")
    assert set(records["status"]) <= {"finished", "diverged"}
    assert len(records) == experiment.size


def test_the_python_api_is_called_as_shown(examples, monkeypatch):
    code = next(block.text for block in blocks("python") if "clipbench.run(" in block.text)
    run = partial(clipbench.run, mlflow=False, workers=1, quiet=True)
    monkeypatch.setattr(clipbench, "run", run)
    monkeypatch.chdir(examples)
    found = {}
    exec(compile(code, "README.md", "exec"), found)
    assert set(found["result"].table["arm"]) < set(found["result"].trials["arm"])
    assert "<svg" in (examples / "thresholds.svg").read_text(encoding="utf-8")


def test_every_python_block_compiles():
    for block in blocks("python"):
        compile(block.text, block.file or "block.py", "exec")


def test_the_plain_loop_reproduces_a_trial(tmp_path, monkeypatch):
    code = next(block.text for block in blocks("python") if "clip_grad_norm_(" in block.text)
    loop = {}
    exec(compile(code, "README.md", "exec"), loop)
    (tmp_path / "loop.yaml").write_text(
        "data: digits\nmodel: mlp\noptimizer: {name: sgd, lr: 0.1, momentum: 0.9}\n"
        "train: {epochs: 2}\nclip: {name: norm, threshold: 0.5}\nseeds: [3]\n"
    )
    monkeypatch.chdir(tmp_path)
    train("loop.yaml", "results", "--workers", "1")
    steps = pd.read_parquet(tmp_path / "results/loop/steps").sort_values("step")
    np.testing.assert_allclose(steps["train/loss"], loop["losses"], rtol=1e-4)


def test_the_files_are_read_with_pandas_as_shown(quick, monkeypatch):
    code = next(block.text for block in blocks("python") if "read_parquet" in block.text)
    monkeypatch.chdir(quick.folder)
    found = {}
    exec(compile(code, "README.md", "exec"), found)
    assert len(found["curve"]) == 2 * 17  # epochs of 1079 examples in batches of 64


def test_the_rule_that_shows_how_to_add_one_is_a_rule():
    code = next(
        block.text for block in blocks("python") if "clipbench.plugins.decorators import strategy" in block.text
    )
    found = {}
    exec(compile(code, "README.md", "exec"), found)
    assert found["norm"].__clipbench__.facts["per"] == "model"
