"""Annotations of the parameters of a function."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Any


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotation of each parameter; nothing if one of them cannot be resolved."""
    function = function.func if isinstance(function, functools.partial) else function
    try:
        annotated = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
        return typing.get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError):  # a user's annotation that cannot be resolved is not a mistake of the YAML
        return {}


def origins(annotation: Any) -> list[Any]:
    """Return the types of a union without their arguments: list and NoneType for `list[int] | None`."""
    if typing.get_origin(annotation) is typing.Annotated:
        return origins(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [origin for part in typing.get_args(annotation) for origin in origins(part)]
    return [typing.get_origin(annotation) or annotation]
