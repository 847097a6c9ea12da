"""Data sets of libraries are read from their caches; without cache and network it is said what to type, at once."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clipbench import datasets as dataset
from clipbench.core.trial import Component
from clipbench.datasets import DataProblem
from clipbench.plugins import registry
from tests.cli_helpers import invoke, train, write

PARTS = {"split.val": 0.2, "split.test": 0.2, "split.seed": 0}
ARFF = """@RELATION tiny
@ATTRIBUTE size REAL
@ATTRIBUTE colour {red,green}
@ATTRIBUTE kind {a,b}
@DATA
"""


def keep(cache: Path, path: str, content: bytes) -> None:
    """As scikit-learn keeps what it has fetched."""
    home = cache / "openml" / "openml.org" / f"{path}.gz"
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_bytes(gzip.compress(content))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of openml.org with one small table."""
    rows = "".join(f"{i / 2},{'red' if i % 3 else 'green'},{'a' if i % 2 else 'b'}\n" for i in range(60))
    content = (ARFF + rows).encode()
    about = {"id": "7", "name": "tiny", "version": "1", "format": "ARFF", "status": "active", "file_id": "70"}
    about |= {"url": "https://www.openml.org/data/v1/download/70", "md5_checksum": hashlib.md5(content).hexdigest()}
    about |= {"description": "", "default_target_attribute": "kind"}
    columns = [
        {
            "index": str(index),
            "name": name,
            "data_type": "numeric" if name == "size" else "nominal",
            "is_target": str(name == "kind").lower(),
            "is_ignore": "false",
            "is_row_identifier": "false",
            "number_of_missing_values": "0",
        }
        for index, name in enumerate(("size", "colour", "kind"))
    ]
    listed = {"data": {"dataset": [{"did": 7, "name": "tiny", "version": 1, "status": "active"}]}}
    qualities = {"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "60"}]}}
    api = "api/v1/json/data"
    for path, found in (
        (f"{api}/list/data_name/tiny/limit/2/status/active/", listed),
        (f"{api}/list/data_name/tiny/limit/2/data_version/1", listed),
        (f"{api}/7", {"data_set_description": about}),
        (f"{api}/features/7", {"data_features": {"feature": columns}}),
        (f"{api}/qualities/7", qualities),
    ):
        keep(tmp_path, path, json.dumps(found).encode())
    keep(tmp_path, "data/v1/download/70", content)
    return tmp_path


@pytest.mark.parametrize("name, options", [("openml:tiny", {}), ("openml:7", {}), ("openml:tiny", {"version": 1})])
def test_a_table_of_openml_is_read_from_the_cache(cache, name, options):
    loaded = dataset.load(Component.of(name, cache=str(cache), **PARTS, **options))
    assert loaded.classes and loaded.outputs == 2 and loaded.inputs == 3
    x = loaded.train[0]
    np.testing.assert_array_equal(x[:, 1], (x[:, 0] * 2) % 3 == 0)
    np.testing.assert_array_equal(loaded.train[1], (x[:, 0] * 2) % 2 == 0)


def test_openml_is_trained_from_the_yaml(cache):
    data = {"name": "openml:tiny", "cache": ".", "standardize": True}
    path = write(cache, data=data, clip="none", seeds=2)
    train(path, cache / "results")
    records = pd.read_parquet(cache / "results" / "small" / "records")
    assert set(records["data"]) == {"openml:tiny"} and set(records["status"]) == {"finished"}
    plain = dataset.load(Component.of("openml", dataset="tiny", cache=str(cache), standardize=True, **PARTS))
    assert set(records["fingerprint"]) == {plain.fingerprint}


def test_pixels_are_images_in_0_to_1():
    pixels = registry.find("data", "openml").function.__globals__["_pixels"]
    frame = pd.DataFrame(np.full((3, 4), 255), columns=[f"pixel{i}" for i in range(1, 5)])
    np.testing.assert_array_equal(pixels(frame), np.ones((3, 4)))


@pytest.fixture
def no_network(monkeypatch):
    """No name has an address, and no proxy helps."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("socket.getaddrinfo", _nobody)


def _nobody(*_: object, **__: object) -> None:
    raise OSError("Name or service not known")


def test_without_cache_and_network_openml_says_what_to_type_and_where(tmp_path, no_network):
    with pytest.raises(DataProblem) as caught:
        dataset.load(Component.of("openml:mnist_784", cache=str(tmp_path), **PARTS))
    said = str(caught.value)
    assert f"not in the cache {tmp_path}/openml" in said and "Name or service not known" in said
    assert "fetch_openml as f; f(name='mnist_784', version='active')" in said
    path = write(tmp_path, data={"name": "openml:mnist_784", "cache": "."})
    refused = invoke("run", path, "--results", tmp_path / "results", "--no-mlflow")
    assert refused.exit_code == 2 and "Traceback" not in refused.output + refused.stderr
    assert "data: openml:mnist_784 cannot be loaded: it is not in the cache" in refused.stderr


def test_an_unknown_option_of_a_library_is_refused(tmp_path):
    said = invoke("check", write(tmp_path, data={"name": "openml:tiny", "versoin": 1}))
    assert said.exit_code == 2 and "Did you mean `version`?" in said.output + said.stderr


# Hugging Face


def test_without_its_library_hf_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataProblem, match=r"Install it: pip install 'clipbench\[hf\]'"):
        dataset.load(Component.of("hf:ylecun/mnist", **PARTS))


@pytest.fixture
def hub(tmp_path):
    """A folder as the hub has them: tables in parts."""
    pytest.importorskip("datasets", reason="an extra: pip install 'clipbench[hf]'")
    folder = tmp_path / "flowers"
    folder.mkdir()
    for part, size in (("train", 40), ("test", 20)):
        table = pd.DataFrame({"a": np.arange(size) / size, "b": 1.0, "label": np.arange(size) % 3})
        table.to_csv(folder / f"{part}.csv", index=False)
    return tmp_path


def load_hf(folder: Path, name: str = "hf:./flowers", **options: object) -> dataset.Dataset:
    return dataset.load(Component.of(name, folder=str(folder), cache="cache", **{**PARTS, **options}))


@pytest.mark.filterwarnings("default")
def test_a_folder_of_hugging_face_keeps_its_parts(hub):
    loaded = load_hf(hub)
    assert [len(part[0]) for part in (loaded.train, loaded.val, loaded.test)] == [32, 8, 20]
    assert loaded.inputs == 2 and loaded.outputs == 3
    np.testing.assert_array_equal(loaded.test[1], np.arange(20) % 3)
    with pytest.raises(DataProblem, match=r"target: there is no column 'lable'. There are: a, b, label"):
        load_hf(hub, target="lable")
    with pytest.raises(DataProblem, match="there is no folder"):
        load_hf(hub, "hf:./nowhere")


@pytest.mark.filterwarnings("default")
def test_images_of_hugging_face_are_stacked(tmp_path):
    datasets = pytest.importorskip("datasets", reason="an extra: pip install 'clipbench[hf]'")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3)).astype(np.uint8)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    rows = {"image": list(pixels), "label": [index % 2 for index in range(20)]}
    made = datasets.Dataset.from_dict(rows, features=features)
    (tmp_path / "pets").mkdir()
    made.to_parquet(tmp_path / "pets" / "train.parquet")
    loaded = load_hf(tmp_path, "hf:./pets")
    assert loaded.inputs == (3, 6, 6) and loaded.outputs == 2 and loaded.classes
    assert [len(part[0]) for part in (loaded.train, loaded.val, loaded.test)] == [12, 4, 4]
    found = {row.tobytes() for row in (loaded.train[0] * 255).round().astype(np.uint8)}
    assert found <= {row.transpose(2, 0, 1).tobytes() for row in pixels}


@pytest.mark.filterwarnings("default")
def test_without_cache_and_network_hf_says_what_to_type_and_where(tmp_path, no_network):
    pytest.importorskip("datasets", reason="an extra: pip install 'clipbench[hf]'")
    with pytest.raises(DataProblem) as caught:
        load_hf(tmp_path, "hf:nobody/nothing")
    said = str(caught.value)
    assert f"not in the cache {tmp_path}/cache" in said and "load_dataset as f; f('nobody/nothing')" in said
