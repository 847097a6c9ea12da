"""What the annotations of a function say, in the form that the registry asks for."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Any


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotation of each parameter, where all of them can be resolved."""
    function = function.func if isinstance(function, functools.partial) else function
    try:
        annotated = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
        return typing.get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError):  # a user's annotation that cannot be resolved is not a mistake of the YAML
        return {}


def origins(annotation: Any) -> list[Any]:
    """What an annotation takes, bare of its arguments: of `list[int] | None`, list and NoneType."""
    if typing.get_origin(annotation) is typing.Annotated:
        return origins(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [origin for part in typing.get_args(annotation) for origin in origins(part)]
    return [typing.get_origin(annotation) or annotation]
