"""The built-in plug-ins as a file beside the compiled modules: what can be named, known without importing torch."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from clipbench.plugins.signature import hints

Catalogue = Mapping[str, Mapping[str, Any]]  # for each kind, plug-ins by name

FOLDER = Path(__file__).parent


class NamedFunction:
    """A function that is imported when it is called, with the signature and the text that `inspect` looks for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        parameters = [p.replace(annotation=p.empty) for p in inspect.signature(function).parameters.values()]
        self.__module__, self.qualified_name = function.__module__, function.__qualname__
        self.__signature__ = inspect.Signature(parameters)
        self.__annotations__ = hints(function)
        self.__doc__, self.module_doc = function.__doc__, module_doc(function)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        found: Any = importlib.import_module(self.__module__)
        for name in self.qualified_name.split("."):
            found = getattr(found, name)
        return found(*arguments, **options)


def module_doc(function: Callable[..., Any]) -> str:
    """The docstring of the module of a function."""
    if isinstance(function, NamedFunction):
        return function.module_doc
    return sys.modules[function.__module__].__doc__ or ""


@functools.cache
def read() -> Catalogue | None:
    """Return the plug-ins of every kind by name; None if the file is missing or of another version."""
    try:
        # As trustworthy as the compiled modules in the same folder.
        return pickle.loads(_path().read_bytes())  # type: ignore[no-any-return]  # noqa: S301
    except (OSError, pickle.UnpicklingError, AttributeError, ImportError, EOFError, LookupError, TypeError, ValueError):
        return None


def write(catalogue: Catalogue) -> None:
    """Write the file if it is missing and the folder can be written to."""
    path = _path()
    if path.exists():
        return
    named = {
        kind: {name: replace(plugin, function=NamedFunction(plugin.function)) for name, plugin in plugins.items()}
        for kind, plugins in catalogue.items()
    }
    with suppress(OSError):  # without the file, what is in it takes longer
        path.parent.mkdir(exist_ok=True)
        for older in path.parent.glob("catalogue-*.pickle"):
            older.unlink(missing_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(pickle.dumps(named))
        unfinished.replace(path)


@functools.cache
def _path() -> Path:
    """The file for these sources, this torch and this Python."""
    files = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in sorted(FOLDER.rglob("*.py"))]
    content = repr((files, _version_of_torch(), sys.version))
    return FOLDER / "__pycache__" / f"catalogue-{hashlib.sha256(content.encode()).hexdigest()[:16]}.pickle"


def _version_of_torch() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:  # built from source, without metadata
        return ""
