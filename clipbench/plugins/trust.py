"""Which functions of installed packages a YAML may name, since it may be a stranger's file.

A file beside the YAML is run when it is imported, and so is to be trusted as the YAML is. A package is there already:
none of its functions may be called but those that are made for what the YAML uses them as.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clipbench.errors import UnknownName
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


def refuse_other_uses(kind: str, name: str, function: Callable[..., Any]) -> None:
    """Raise an error unless a function of a package is made for what it is used as."""
    refuse_standard_library(getattr(function, "__module__", None) or "builtins")
    wanted = MADE_FOR.get(kind)
    if wanted is None or wanted & set(_classes(function)):
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
