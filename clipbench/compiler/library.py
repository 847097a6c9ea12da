"""The library of kernels: compiled on this machine by its C compiler, once, and kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import torch

from clipbench.compiler.trace import CannotCompile

FOLDER = Path(__file__).parent / "kernels"
HEADERS = tuple(sorted(path.name for path in FOLDER.glob("*.h")))
SOURCES = ("kernels.c", "pointwise.c")
# As GCC does by itself, every compiler may round a product and a sum once.
FLAGS = ("-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
# For the processor of this machine. What a compiler does not know is left out.
OF_X86 = ("-march=native", "-mprefer-vector-width=512")
TUNED = OF_X86 if platform.machine().lower() in ("x86_64", "amd64") else ("-mcpu=native",)
TYPES = {torch.float32: (), torch.float64: ("-DREAL_IS_DOUBLE",)}
COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS = 120


class NoLibrary(CannotCompile):
    """The kernels cannot be compiled or loaded; the text says why."""


class Library:
    """The loaded library of one type of real numbers."""

    def __init__(self, path: Path) -> None:
        loaded = ctypes.CDLL(str(path))
        others, pointwise, gradual = (
            (ctypes.c_char_p.in_dll(loaded, f"{kind}_names").value or b"").decode().split()
            for kind in ("operator", "pointwise", "gradual")
        )
        self.operators = {name: number for number, name in enumerate([*others, *pointwise])}
        self.pointwise = range(len(others), len(self.operators))  # the numbers of those that work element by element
        self.gradual = frozenset(self.operators[name] for name in gradual)  # of reductions that go on block by block
        self.record_size = ctypes.c_int64.in_dll(loaded, "record_size").value
        self.path, self.run = path, loaded.run
        self.run.argtypes = (
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_int64,
            ctypes.c_int64,
        )


def describe() -> str:
    """Return where the compiled kernels are, or why there are none."""
    try:
        return str(library(torch.float32).path)
    except NoLibrary as reason:
        return f"none: {reason}"


def library(dtype: torch.dtype) -> Library:
    """Return the library for a type of real numbers; compile it if it was not yet. Raises NoLibrary."""
    made = found(dtype)
    if isinstance(made, str):
        raise NoLibrary(made)
    return made


@cache  # a compiler that fails is not tried again
def found(dtype: torch.dtype) -> Library | str:
    """Return the library, or why there is none."""
    if os.environ.get("CLIPBENCH_NATIVE") == "0":
        return "CLIPBENCH_NATIVE=0 turns the compiled kernels off"
    if dtype not in TYPES:
        return f"there are no compiled kernels for {dtype}"
    reason = "there is no C compiler; install gcc or clang, or: pip install 'clipbench[compiler]'"
    for compiler, tuned in product(_compilers(), (TUNED, ())):
        try:
            return _library([*compiler, *FLAGS, *tuned, *TYPES[dtype]])
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            reason = f"the kernels could not be compiled: {_reason(error)}"
    return reason


def _compilers() -> list[list[str]]:
    """Return the commands that may compile C: what CC says, or those on PATH and then the one that pip installs."""
    if chosen := os.environ.get("CC"):
        return [chosen.split()]
    found = [[path] for path in map(shutil.which, COMPILERS) if path]
    return [*found, [sys.executable, "-m", "ziglang", "cc"]] if find_spec("ziglang") else found


def _library(command: list[str]) -> Library:
    path = _cache_folder() / f"kernels-{_fingerprint(command)}.so"
    if path.exists():
        try:
            return Library(path)
        except (OSError, ValueError):  # incomplete, or for another system
            path.unlink()
    _compile(command, path)
    return Library(path)


def _compile(command: list[str], path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as name:  # other processes may compile it at the same time
        folder = Path(name)
        objects = {source: str(folder / f"{source}.o") for source in SOURCES}
        _run(([*command, "-c", str(FOLDER / source), "-o", objects[source]] for source in SOURCES), folder)
        _run([[*command, "-shared", *objects.values(), "-o", str(folder / path.name), "-lm"]], folder)
        (folder / path.name).replace(path)


def _run(commands: Iterable[list[str]], folder: Path) -> None:
    """Run commands at the same time; raise an OSError with the first error that one prints when it fails."""
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(folder), **os.environ}  # it may have no home, and is not needed again
    with ExitStack() as opened:
        running = [
            opened.enter_context(
                subprocess.Popen(each, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
            )
            for each in commands
        ]
        for process in running:
            opened.callback(process.kill)
        for process in running:
            _, printed = process.communicate(timeout=COMPILE_SECONDS)
            if process.returncode:
                lines = [line for line in printed.splitlines() if line]
                raise OSError(next((line for line in lines if "error" in line), [*lines, "the compiler failed"][0]))


def _fingerprint(command: list[str]) -> str:
    """Return what the compiled file depends on: the sources, the command and the processor."""
    texts = [(FOLDER / name).read_text() for name in (*SOURCES, *HEADERS)]
    return hashlib.sha256("\0".join([*texts, *command, platform.machine(), _processor()]).encode()).hexdigest()[:16]


def _processor() -> str:
    """Return the model and the instructions of the processor: a home may be shared by several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        next((line for line in lines if line.startswith(key)), "")
        for key in ("model name", "CPU part", "flags", "Features")
    )


def _cache_folder() -> Path:
    """Return the folder for compiled libraries: in the user's cache, or else among temporary files."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipbench"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home
        pass
    folder = Path(tempfile.gettempdir()) / f"clipbench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise OSError(f"others may write to {folder}")
    return folder


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
