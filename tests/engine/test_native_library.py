"""The library of kernels: where it is kept, and what happens where it cannot be made."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clipbench.compiler import library as module
from clipbench.compiler.library import NoLibrary, library


@pytest.fixture(autouse=True)
def no_library_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    library.cache_clear()
    yield
    library.cache_clear()


def compiler(folder: Path, text: str) -> str:
    path = folder / "fake-cc"
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
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoLibrary, match="no C compiler"):
        library(torch.float32)


def test_a_compiler_that_writes_nothing_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = 'while [ "$1" != -o ]; do shift; done; echo text > "$2"'
    monkeypatch.setenv("CC", compiler(tmp_path, write))
    with pytest.raises(NoLibrary, match="could not be compiled"):
        library(torch.float32)


def test_a_library_that_cannot_be_loaded_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(torch.float32)
    (path,) = (tmp_path / "cache").rglob("*.so")
    path.unlink()  # it is in use
    path.write_bytes(b"not a library")
    library.cache_clear()
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
