"""Event files that TensorBoard's own writer has written."""

import importlib.util

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from clipbench.errors import InputError
from clipbench.logged_norms import read_norms

NORMS = np.exp(np.random.default_rng(0).normal(size=12_000)).astype(np.float32)


def log(folder, values, first=0, tag="train/grad_norm"):
    with SummaryWriter(str(folder)) as writer:
        for step, value in enumerate(values, start=first):
            writer.add_scalar(tag, value, step)


def read(path, *wanted):
    return read_norms(str(path), wanted, "results", None)


def test_every_value_of_a_tag_is_read(tmp_path):
    log(tmp_path, [*NORMS, float("nan")])
    [file] = tmp_path.iterdir()
    for source in (tmp_path, file):
        [norms] = read(source)
        np.testing.assert_array_equal(norms.whole, NORMS)
        assert norms.nonfinite == 1 and (norms.first, norms.last) == (0, len(NORMS))


def test_an_event_file_is_known_by_its_content(tmp_path):
    log(tmp_path / "runs", NORMS[:5])
    [file] = (tmp_path / "runs").iterdir()
    renamed = file.rename(tmp_path / "log.csv")
    assert read(renamed)[0].steps == 5


def test_each_folder_is_a_run_and_those_without_norms_are_left_out(tmp_path):
    log(tmp_path / "a", NORMS[:10])
    log(tmp_path / "b", NORMS[10:30])
    log(tmp_path / "eval", [0.5], tag="accuracy")
    assert [(norms.source[-1], norms.steps) for norms in read(tmp_path)] == [("a", 10), ("b", 20)]
    with pytest.raises(InputError, match=r"no column of numbers 'x'"):
        read(tmp_path, "x")


def test_a_training_that_was_resumed_is_read_from_both_files(tmp_path):
    log(tmp_path, NORMS[:10])
    log(tmp_path, NORMS[10:20], first=10)
    assert read(tmp_path)[0].steps == 20


def test_without_tensorboard_the_way_out_is_said(tmp_path, monkeypatch):
    log(tmp_path, NORMS[:3])
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find_spec(name))
    with pytest.raises(InputError, match=r"not installed. Install it with `pip install 'clipbench\[tensorboard\]'`"):
        read(tmp_path)
