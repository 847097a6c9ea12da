"""The catalogue of built-in plug-ins as a file: the same without torch as with it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from clipbench.config.component_options import signature
from clipbench.plugins import catalogue_file, registry

WITHOUT_TORCH = """
import pickle, sys
from clipbench.config.component_options import signature
from clipbench.plugins import registry
found = {}
for kind in registry.HOMES:
    for name, plugin in registry.catalogue(kind).items():
        facts = (plugin.doc, plugin.summary, plugin.family, plugin.given, plugin.is_stream, plugin.open, dict(plugin.facts))
        found[kind, name] = (*facts, plugin.options, {k: (s.default, str(s.annotation)) for k, s in signature(plugin).items()})
found["data", "openml:x"] = list(registry.find("data", "openml:x").options)
assert "torch" not in sys.modules and "numpy" not in sys.modules
sys.stdout.buffer.write(pickle.dumps(found))
"""


def run(code: str, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False, cwd=folder)


def test_all_that_is_known_of_a_plug_in_is_known_without_torch() -> None:
    registry.catalogue("model")  # writes the file if it is missing
    done = run(WITHOUT_TORCH)
    assert done.returncode == 0, done.stderr.decode()
    found = pickle.loads(done.stdout)
    assert found.pop(("data", "openml:x")) == list(registry.find("data", "openml:x").options)
    expected = [(kind, name) for kind in registry.HOMES for name in registry.catalogue(kind)]
    assert list(found) == expected
    for kind, name in expected:
        plugin = registry.catalogue(kind)[name]
        facts = (
            plugin.doc,
            plugin.summary,
            plugin.family,
            plugin.given,
            plugin.is_stream,
            plugin.open,
            dict(plugin.facts),
        )
        options = {key: (spec.default, str(spec.annotation)) for key, spec in signature(plugin).items()}
        assert found[kind, name] == (*facts, plugin.options, options), name


def test_a_function_of_the_file_is_imported_when_it_is_called() -> None:
    code = """
import sys
from clipbench.plugins import registry
accuracy = registry.find("metric", "accuracy").function
assert "torch" not in sys.modules
import torch
print(float(accuracy(torch.eye(3), torch.tensor([0, 1, 0]))))
"""
    registry.catalogue("metric")
    done = run(code)
    assert done.returncode == 0, done.stderr.decode()
    assert float(done.stdout) == pytest.approx(2 / 3)


CHECK = """
import sys
from clipbench.config import check_early
from clipbench.errors import InputError
try:
    check_early(sys.argv[1])
except InputError as error:
    print(error)
print([name for name in ("torch", "numpy", "pandas", "mlflow", "scipy") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("changed", "message"),
    (
        ("model: mlpp", "unknown model 'mlpp'. Did you mean `mlp`?"),
        ("model: {name: mlp, hidden: wide}", "hidden: expected"),
        ("optimizer: {name: sgd, lr: fast}", "lr: expected a number"),
        ("clip: {name: norm, threshold: -1}", "threshold must be at least 0, got -1"),
        ("train: {epohcs: 3}", "Did you mean `epochs`?"),
        ("modle: mlp", "Did you mean `model`?"),
        ("model: [mlp", "invalid YAML"),
    ),
)
def test_mistakes_of_the_yaml_are_told_without_torch(tmp_path: Path, changed: str, message: str) -> None:
    registry.catalogue("model")
    lines = {"data": "data: spirals", "model": "model: mlp", "optimizer": "optimizer: {name: sgd, lr: 0.1}"}
    lines |= {"clip": "clip: none", "train": "train: {epochs: 2}", changed.partition(":")[0]: changed}
    path = tmp_path / "x.yaml"
    path.write_text("\n".join(lines.values()))
    done = run(CHECK, str(path))
    assert done.returncode == 0, done.stderr.decode()
    said, _, loaded = done.stdout.decode().strip().rpartition("\n")
    assert message in said
    assert loaded == "[]"


def test_functions_of_the_user_are_left_to_the_process_that_imports_torch(tmp_path: Path) -> None:
    registry.catalogue("model")
    (tmp_path / "own.py").write_text("raise SystemExit('imported')")
    path = tmp_path / "x.yaml"
    path.write_text("data: spirals\nmodel: ./own.py:net\noptimizer: {name: sgd, lr: 0.1}\nclip: none\ntrian: 3\n")
    done = run(CHECK, str(path))
    assert (done.returncode, done.stdout.decode().strip()) == (0, "[]"), done.stderr.decode()


def test_a_file_that_cannot_be_read_or_written_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    damaged = tmp_path / "catalogue-0.pickle"
    damaged.write_bytes(b"\x80")
    monkeypatch.setattr(catalogue_file, "_path", lambda: damaged)
    assert catalogue_file.read.__wrapped__() is None
    monkeypatch.setattr(catalogue_file, "_path", lambda: tmp_path / "file" / "catalogue-0.pickle")
    (tmp_path / "file").write_text("")
    assert catalogue_file.read.__wrapped__() is None
    catalogue_file.write({kind: registry._imported(kind) for kind in registry.HOMES})


def test_a_file_of_other_sources_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    older, newer = tmp_path / "catalogue-1.pickle", tmp_path / "catalogue-2.pickle"
    older.write_bytes(b"")
    monkeypatch.setattr(catalogue_file, "_path", lambda: newer)
    catalogue_file.write({kind: registry._imported(kind) for kind in registry.HOMES})
    assert [file.name for file in tmp_path.iterdir()] == [newer.name]
    known = catalogue_file.read.__wrapped__()
    assert known is not None
    assert list(known["model"]) == list(registry.catalogue("model"))
