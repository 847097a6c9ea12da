"""Import of modules with the user's own functions: `package.module`, or a file beside the YAML."""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from pathlib import Path

from clipbench.core.time_limit import TIME_LIMIT
from clipbench.errors import UnknownName, did_you_mean, is_of_function
from clipbench.plugins.trust import refuse_standard_library


class NotImported(Exception):
    """A function of the user was looked up where only built-in plug-ins may be."""


class Imports(Enum):
    """What happens where a module of the user would be imported."""

    DONE = "it is imported"
    REFUSED = "NotImported is raised: it may import torch"
    LEFT_OUT = "its functions are taken for some that are right"


_imports = ContextVar("_imports", default=Imports.DONE)


@contextmanager
def imports(what: Imports) -> Iterator[None]:
    """Do this with imports of the user's modules."""
    token = _imports.set(what)
    try:
        yield
    finally:
        _imports.reset(token)


def are_left_out() -> bool:
    return _imports.get() is Imports.LEFT_OUT


IMPORT_VARIABLE, IMPORT_SECONDS = "CLIPBENCH_IMPORT_TIMEOUT", 120.0
# The attribute of such a module that holds the hash of its file.
SOURCE = "__clipbench_source__"


def package_module(name: str) -> types.ModuleType:
    _refuse()
    if not all(part.isidentifier() for part in name.split(".")):
        raise UnknownName(
            f"{name!r} is neither a module nor a file.",
            "Write package.module:function or ./file.py:function.",
        )
    refuse_standard_library(name)
    try:
        with _limited(name):
            module = importlib.import_module(name)
    except BaseException as error:
        if isinstance(error, SystemExit) or not is_of_function(error):
            raise
        raise UnknownName(f"cannot import {name!r}: {error}.", "Is it installed?") from error
    if SOURCE not in module.__dict__:
        file = getattr(module, "__file__", None)  # modules in C have none
        content = Path(file).read_bytes() if file else b""
        module.__dict__[SOURCE] = hashlib.sha256(content).hexdigest()[:16]
    return module


def file_module(path: Path, *, is_script: bool = False) -> types.ModuleType:
    """Return the module of a file. A script is imported as Python runs it: it finds the modules beside it, and other
    processes, such as those of a data loader, find its functions by the name of its file.
    """
    _refuse()
    path = path.resolve()
    if not path.is_file():
        near = [candidate.name for candidate in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UnknownName(f"there is no file {path}.", did_you_mean(path.name, near) if near else "")
    content = path.read_bytes()
    source = hashlib.sha256(content).hexdigest()[:16]
    # The module name depends on path and content: `model.py` of two experiments, or before and after an edit, differ.
    module_name = "clipbench_user_" + hashlib.sha256(str(path).encode() + content).hexdigest()[:16]
    if is_script:
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        if _is_free(path, source):
            module_name = path.stem
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_loader(module_name, _Content(module_name, path, content))
    if spec is None or spec.loader is None:
        raise UnknownName(f"{path} is not a Python file.", "")
    module = importlib.util.module_from_spec(spec)
    module.__dict__[SOURCE] = source
    sys.modules[module_name] = module
    try:
        with _limited(str(path)):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[module_name]
        if isinstance(error, SystemExit) or not is_of_function(error):
            raise
        raise UnknownName(f"cannot import {path}: {type(error).__name__}: {error}.", "") from error
    return module


def _is_free(path: Path, source: str) -> bool:
    """Whether a script can be imported by the name of its file: no other module, nor an older text of it, has it."""
    known = sys.modules.get(path.stem)
    same = known is None or (getattr(known, "__file__", "") == str(path) and getattr(known, SOURCE, "") == source)
    return same and path.stem.isidentifier() and path.stem not in sys.stdlib_module_names


def _refuse() -> None:
    if _imports.get() is Imports.REFUSED:
        raise NotImported


@contextmanager
def _limited(name: str) -> Iterator[None]:
    """Say what is imported, and limit its time, in a process that may end."""
    announce(name)
    with TIME_LIMIT.within(import_seconds(), first=0.0):
        TIME_LIMIT.renew()
        yield
    announce("")


def announce(name: str) -> None:
    """Note that a module is about to be imported, or that this is done; a worker tells its parent."""


def import_seconds() -> float:
    """Return how long the import of a module may take."""
    try:
        return max(0.1, float(os.environ[IMPORT_VARIABLE]))
    except (KeyError, ValueError):
        return IMPORT_SECONDS


class _Content(importlib.machinery.SourceFileLoader):
    """Compile the bytes that were hashed; a cached .pyc may belong to an earlier edit in the same second."""

    def __init__(self, name: str, path: Path, content: bytes) -> None:
        super().__init__(name, str(path))
        self._content = content

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self._content, self.path)
