"""Which functions of installed packages a YAML may name, since it may be a stranger's file.

A file beside the YAML, or a module of one's own project, runs when it is imported, and is to be trusted as a script is.
An installed package is there already: of its functions only those may be called that are made for what the YAML uses
them as.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clipbench.errors import UnknownName
from clipbench.plugins.imported_files import is_installed
from clipbench.plugins.signature import origins

# What a class is, or what a function is annotated to return, by the name of the class.
MADE_FOR: Mapping[str, frozenset[str]] = {
    "model": frozenset({"Module"}),
    "data": frozenset({"tuple", "dict", "Mapping", "Dataset", "IterableDataset"}),
    "optimizer": frozenset({"Optimizer", "Tensor", "tuple"}),
    "loss": frozenset({"Module", "Tensor", "float"}),
    "metric": frozenset({"Tensor", "float", "int"}),
    "schedule": frozenset({"float", "Tensor"}),
    "noise": frozenset({"Tensor"}),
    "strategy": frozenset({"Tensor", "tuple"}),
    "augmentation": frozenset({"Tensor", "tuple"}),
}


def refuse_standard_library(module: str) -> None:
    """Raise an error for a module of Python itself."""
    if module.partition(".")[0] in {*sys.stdlib_module_names, *sys.builtin_module_names}:
        remedy = "Name a function of a file beside the YAML, or of an installed package."
        raise UnknownName(f"{module} belongs to Python itself.", remedy)


def refuse_other_uses(kind: str, name: str, function: Callable[..., Any], file: str | None) -> None:
    """Raise an error unless a function of an installed package, whose `file` it is, is made for what it is used as."""
    if inspect.isroutine(function) or inspect.isclass(function):
        refuse_standard_library(function.__module__ or "builtins")
    wanted = MADE_FOR.get(kind)
    if wanted is None or not (file and is_installed(Path(file))) or wanted & set(_classes(function)):
        return
    names = " or ".join(sorted(wanted))
    remedy = f"Annotate what it returns (`-> {names}`), declare it with @{kind}, or call it in a file beside the YAML."
    raise UnknownName(f"{name} is not known to be a {kind}.", remedy)


def _classes(function: Callable[..., Any]) -> Iterator[str]:
    """Yield the names of the classes that a class is, or that a function is annotated to return."""
    for each in [function] if inspect.isclass(function) else origins(_returned(function)):
        yield from (base.__name__ for base in getattr(each, "__mro__", ()))


def _returned(function: Callable[..., Any]) -> Any:
    try:
        called = function if inspect.isroutine(function) else type(function).__call__
        return typing.get_type_hints(called).get("return")
    except (NameError, TypeError):  # an annotation that cannot be resolved says nothing
        return None
