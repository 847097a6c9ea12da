"""Annotations of the parameters of a function."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Any


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotation of each parameter without tensors, which YAML cannot express; nothing if one is unknown."""
    function = function.func if isinstance(function, functools.partial) else function
    try:
        annotated = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
        found = typing.get_type_hints(annotated, include_extras=True)
        return {name: _without_tensors(annotation) for name, annotation in found.items() if name != "return"}
    except (NameError, TypeError):  # a user's annotation that cannot be resolved is not a mistake of the YAML
        return {}


def _without_tensors(annotation: Any) -> Any:
    """Return `float` for `float | Tensor`, and Any for what consists of types of torch or numpy."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        kept = [part for part in map(_without_tensors, parts) if part is not Any]
        return typing.Union[tuple(kept)] if kept else Any  # noqa: UP007
    if origin is tuple:
        return tuple[tuple(part if part is Ellipsis else _without_tensors(part) for part in parts)]  # type: ignore[misc]
    return Any if _mentions_tensors(annotation) else annotation


def _mentions_tensors(annotation: Any) -> bool:
    if str(getattr(annotation, "__module__", "")).partition(".")[0] in ("torch", "numpy"):
        return True
    return any(map(_mentions_tensors, typing.get_args(annotation)))


def origins(annotation: Any) -> list[Any]:
    """Return the types of a union without their arguments: list and NoneType for `list[int] | None`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return origins(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [origin for part in typing.get_args(annotation) for origin in origins(part)]
    return [typing.get_origin(annotation) or annotation]
