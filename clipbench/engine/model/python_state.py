"""The state of an object beyond its tensors: every value that can be reached through its attributes.

A model may keep a counter, the last hidden state or a generator in an attribute of its own. Two snapshots, taken before
and after a call, tell what the call has changed.
"""

from __future__ import annotations

import functools
import inspect
import logging
import pickle
import random
import sys
import types
import warnings
import weakref
from collections.abc import Hashable, Iterator, Mapping, Sequence, Set
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

Leaf = tuple[str, Any]  # the path to a value, and the value
Snapshot = dict[str, Hashable]  # what is compared of each value, by its path

ATOMS = (bool, int, float, complex, str, bytes, type(None), type, torch.dtype, torch.device, Enum)
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
# What is no state of a model: modules of Python, references that keep nothing alive, loggers.
IGNORED = (types.ModuleType, weakref.ref, logging.Logger)
# Classes and files of these packages keep no state that a model depends on.
LIBRARIES = frozenset({*sys.stdlib_module_names, "torch", "numpy", "clipbench"})
MODULE_PARTS = ("_parameters", "_buffers", "_modules")


class Opaque(NamedTuple):
    """An object that cannot be looked into: it is taken for unchanged as long as it is the same one."""

    kind: type
    identity: object


class TensorState(NamedTuple):
    """What is compared of a tensor; `version` counts the operations that wrote into it, whether it changed or not."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    trained: bool
    content: int | None
    version: int


def snapshot(root: Any) -> Snapshot:
    """Return what can be reached from an object: `encoder.weight`, `state[0]`, `schedule.t`."""
    return {path: _fingerprint(value) for path, value in leaves(root)}


def leaves(root: Any) -> Iterator[Leaf]:
    """Yield the path and the value of every tensor, array, generator, number and text, each object once."""
    yield from _walk(root, "", {})


def shared_by(functions: Sequence[Any]) -> Snapshot:
    """Return the data in classes, and in the files that define them and functions, without those of libraries."""
    classes = [base for each in functions if isinstance(each, type) for base in each.__mro__]
    names = [getattr(each, "__module__", None) or type(each).__module__ for each in (*functions, *classes)]
    files = [vars(sys.modules[name]) for name in dict.fromkeys(names) if not _in_library(name) and name in sys.modules]
    owners = [(f"{each.__name__}.", vars(each)) for each in classes if not _in_library(each.__module__)]
    found: Snapshot = {}
    for prefix, members in (*owners, *(("", file) for file in files)):
        for name, value in list(members.items()):
            if _is_data(name, value):
                found |= {path: _fingerprint(part) for path, part in _walk(value, f"{prefix}{name}", {})}
    return found


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the paths whose values differ, or that only one of them has."""
    return [path for path in {**before, **after} if before.get(path, _MISSING) != after.get(path, _MISSING)]


def differing(one: Snapshot, other: Snapshot) -> list[str]:
    """Return the paths whose values differ between two objects that were made in the same way."""
    return changed(*({path: _kind(value) for path, value in each.items()} for each in (one, other)))


_MISSING = object()


def _kind(value: Hashable) -> Hashable:
    """Return what two objects that were made in the same way have in common."""
    if isinstance(value, TensorState):
        return value._replace(version=0)
    return value.kind if isinstance(value, Opaque) else value


def _walk(value: Any, path: str, seen: dict[int, Any]) -> Iterator[Leaf]:
    if isinstance(value, IGNORED):
        return
    if isinstance(value, ATOMS):
        yield path, value
        return
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept alive, so that no other object gets its number
    if isinstance(value, (Tensor, np.ndarray, *GENERATORS)):
        yield path, value
    else:
        parts = dict(_parts(value))
        if not parts:
            yield path, value
        for name, part in parts.items():
            yield from _walk(part, f"{path}{name}" if name.startswith("[") or not path else f"{path}.{name}", seen)


def _parts(value: Any) -> Iterator[Leaf]:
    """Yield the parts of an object; nothing if it cannot be looked into."""
    if isinstance(value, Mapping):
        names = (f"[{key!r}]" if isinstance(key, str | int) else f"[{number}]" for number, key in enumerate(value))
        yield from zip(names, list(value.values()), strict=True)
    elif isinstance(value, Sequence | Set):
        yield from ((f"[{number}]", item) for number, item in enumerate(value))
        yield "[len]", len(value)
    elif isinstance(value, types.FunctionType):
        yield from _closure(value)
    elif isinstance(value, types.MethodType | types.BuiltinMethodType):
        yield "__self__", value.__self__
        yield from _closure(getattr(value, "__func__", None))
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif not isinstance(value, Iterator):  # what is left of an iterator is not known
        yield from _attributes(value)


def _closure(function: Any) -> Iterator[Leaf]:
    """Yield the variables that a function shares with the place where it was defined, and its attributes."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    for name, cell in zip(code.co_freevars if code else (), cells, strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    yield from ((f"default_{n}", value) for n, value in enumerate(getattr(function, "__defaults__", None) or ()))
    yield from getattr(function, "__dict__", {}).items()


def _attributes(value: Any) -> Iterator[Leaf]:
    own = dict(getattr(value, "__dict__", {}))
    if isinstance(value, nn.Module):
        for part in MODULE_PARTS:
            yield from own.pop(part, {}).items()
        own.pop("training", None)
        for name, held in list(own.items()):
            if name.endswith(("_hooks", "_hooks_with_kwargs")) and isinstance(held, dict):
                yield name, list(own.pop(name).values())  # their keys are numbers that count all hooks
    yield from own.items()
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                yield name, getattr(value, name)


def _is_data(name: str, value: Any) -> bool:
    """Whether a member of a class or of a file is no code."""
    if name.startswith("__") or isinstance(value, type) or inspect.isroutine(value) or inspect.isdatadescriptor(value):
        return False
    return (
        isinstance(value, (*ATOMS, Tensor, np.ndarray, *GENERATORS))
        or not _in_library(type(value).__module__)
        or (isinstance(value, Mapping | Sequence | Set))
    )


def _in_library(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES


def _fingerprint(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        trained = isinstance(value, nn.Parameter) and value.requires_grad
        version = 0 if value.is_inference() else value._version
        return TensorState(tuple(value.shape), value.dtype, trained, _content(value), version)
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype, hash(value.tobytes())
    if isinstance(value, torch.Generator):
        return hash(value.get_state().numpy().tobytes())
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return repr(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, ATOMS):
        return type(value), repr(value)
    return Opaque(type(value), _position(value) if isinstance(value, Iterator) else id(value))


def _position(iterator: Any) -> object:
    """Return how far an iterator is; if that is not known, something that never equals another snapshot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pickle.dumps(iterator)
    except Exception:  # noqa: BLE001 - an object may refuse to be pickled in any way
        return object()


def _content(tensor: Tensor) -> int | None:
    """Return a hash of the bytes of a tensor."""
    if isinstance(tensor, UninitializedParameter | UninitializedBuffer) or tensor.is_meta:
        return None
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    return hash(dense.cpu().resolve_conj().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
