"""The library of kernels: where it is kept, and what happens where it cannot be made."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from clipbench.compiler import library as module
from clipbench.compiler.call_records import Record
from clipbench.compiler.library import NoLibrary, found, library
from tests.engine.native_checks import TOLERANCE, check, reals

PATH, FLAGS = os.environ.get("PATH", ""), module.FLAGS
REAL = next(filter(None, map(shutil.which, module.COMPILERS)), "")
HERE = [
    *filter(shutil.which, ("gcc", "clang")),
    *[f"{sys.executable} -m ziglang cc"] * (find_spec("ziglang") is not None),
]
requires_a_compiler = pytest.mark.skipif(not REAL, reason="there is no C compiler on PATH")


@pytest.fixture(autouse=True)
def no_library_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CLIPBENCH_NATIVE", raising=False)
    # What is tested is how the library is made, not its speed: without optimization it takes a fifth of the time.
    monkeypatch.setattr(module, "FLAGS", ("-O0", "-fPIC"))
    found.cache_clear()
    yield
    found.cache_clear()


def compiler(folder: Path, text: str, name: str = "fake-cc") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def test_a_compiler_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler(tmp_path, "echo 'kernels.c: error: no stdint.h' >&2; exit 1"))
    with pytest.raises(NoLibrary, match=r"could not be compiled: .*no stdint.h"):
        library(torch.float32)


def test_a_compiler_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "nothing"))
    with pytest.raises(NoLibrary, match="nothing"):
        library(torch.float32)
    found.cache_clear()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(NoLibrary, match=r"no C compiler; .* pip install 'clipbench\[compiler\]'"):
        library(torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("command", HERE)
def test_each_compiler_compiles_without_warnings(
    command: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLAGS", FLAGS)  # some warnings need optimization
    monkeypatch.setenv("CC", f"{command} -Wall -Wextra -Werror")
    torch.manual_seed(0)
    check(lambda x, y: torch.softmax(x @ y, -1).norm(), [reals(9, 20), reals(20, 7)], dtype, factor=8)


@requires_a_compiler
def test_a_compiler_that_pip_installs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site" / "ziglang").mkdir(parents=True)
    (tmp_path / "site" / "ziglang" / "__init__.py").touch()
    (tmp_path / "site" / "ziglang" / "__main__.py").write_text(
        "import os, sys\n"
        "assert sys.argv[1] == 'cc' and os.path.isdir(os.environ['ZIG_GLOBAL_CACHE_DIR'])\n"
        f"os.execve({REAL!r}, [{REAL!r}, *sys.argv[2:]], {{**os.environ, 'PATH': {PATH!r}}})\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    assert "matmul" in library(torch.float32).operators
    assert [path.suffix for path in (tmp_path / "cache" / "clipbench").iterdir()] == [".so"]


@requires_a_compiler
def test_flags_for_the_processor_that_a_compiler_does_not_know_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'for each; do case "$each" in -march=*|-mcpu=*) exit 1;; esac; done; exec {REAL} "$@"'
    monkeypatch.setenv("CC", compiler(tmp_path, text))
    assert "matmul" in library(torch.float32).operators


@requires_a_compiler
def test_where_one_compiler_fails_the_next_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler(tmp_path, "exit 1", "cc")
    compiler(tmp_path, f'PATH={PATH!r} exec {REAL} "$@"', "gcc")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "matmul" in library(torch.float32).operators


@requires_a_compiler
def test_python_and_c_agree_on_a_record() -> None:
    made = library(torch.float32)
    assert made.record_size == ctypes.sizeof(Record)
    assert made.gradual and made.gradual <= set(made.operators.values())


def test_a_compiler_that_fails_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler(tmp_path, f"echo again >> {tmp_path}/calls; exit 1"))
    for _ in range(3):
        with pytest.raises(NoLibrary):
            library(torch.float32)
        calls = (tmp_path / "calls").read_text()
        assert len(calls.split()) <= 4  # two sources, with flags for the processor and without


def test_a_compiler_that_writes_nothing_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = 'while [ "$1" != -o ]; do shift; done; echo text > "$2"'
    monkeypatch.setenv("CC", compiler(tmp_path, write))
    with pytest.raises(NoLibrary, match="could not be compiled"):
        library(torch.float32)


@requires_a_compiler
def test_a_library_that_cannot_be_loaded_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(torch.float32)
    (path,) = (tmp_path / "cache").rglob("*.so")
    path.unlink()  # it is in use
    path.write_bytes(b"not a library")
    found.cache_clear()
    loaded = []

    class Loading(module.Library):
        def __init__(self, path: Path) -> None:
            loaded.append(path.stat().st_size)
            if loaded == [len(b"not a library")]:
                raise OSError("invalid ELF header")
            super().__init__(path)

    monkeypatch.setattr(module, "Library", Loading)
    assert "matmul" in library(torch.float32).operators
    assert len(loaded) == 2


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_home_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    assert module._cache_folder().parent == tmp_path / "tmp"


def test_a_home_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    folder = module._cache_folder()
    assert folder == tmp_path / "tmp" / f"clipbench-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_for_all_that_others_may_change_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"clipbench-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(NoLibrary, match="others may write"):
        library(torch.float32)


def test_types_without_kernels_and_kernels_that_are_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoLibrary, match="bfloat16"):
        library(torch.bfloat16)
    monkeypatch.setenv("CLIPBENCH_NATIVE", "0")
    with pytest.raises(NoLibrary, match="turns the compiled kernels off"):
        library(torch.float32)
