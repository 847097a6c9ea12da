"""Validate values by type annotations, with error messages for users."""

from __future__ import annotations

import inspect
import itertools
import json
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from clipbench.errors import CONTROL, did_you_mean, shortened
from clipbench.plugins.registry import Option


class InvalidValue(ValueError):
    """A value that an option does not take: `text` says what was expected and got, `remedy` what to do."""

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.remedy = remedy


def printable(text: str) -> str:
    """Return a text; raise InvalidValue if a terminal would obey some of it."""
    if found := CONTROL.search(text):
        raise InvalidValue(f"the text contains the control character {found[0]!r}.", "Remove it.")
    return text


def validate(value: Any, annotation: Any, *, infinite: bool = False) -> Any:
    """Return the value converted to the annotation, such as an int to a float; else raise InvalidValue."""
    readable = _readable(annotation)
    parts = list(_parts(value))
    if any(isinstance(part, dict) for part in parts):
        raise InvalidValue(f"expected {describe_type(readable)}, got {show(value)}.", "Write a single value or a list.")
    if not infinite and any(isinstance(part, float) and math.isinf(part) for part in parts):
        raise InvalidValue(f"expected {describe_type(readable)}, got {show(value)}.", "Write a finite number.")
    try:
        return _validated(value, readable)
    except ValidationError as error:
        first = error
    try:
        return _validated(_whole(value), readable)  # 1e4 steps
    except ValidationError:
        raise _invalid(value, readable, first) from None


def effective_annotation(option: Option, own: bool) -> Any:
    """Return the annotation that values are validated by: the written one, or else the type of the default.

    A user's own function takes any value of YAML there, but an integer is converted to float if the default is a float.
    """
    guess = type(option.default)
    if option.annotation is not Any or guess not in (bool, int, float, str):
        return option.annotation
    return guess if not own else _FREE_FLOAT if guess is float else Any


_FREE_FLOAT = float | bool | str | list[Any] | None


def is_plain(value: Any) -> bool:
    """Whether a default can stand in YAML; others (a function, a module) the plug-in fills in itself."""
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    return value is None or (isinstance(value, bool | int | float | str) and value == value)


def takes_integers(annotation: Any) -> bool:
    """Return whether the annotation takes integers but not floats."""
    kinds = _members(annotation)
    return int in kinds and float not in kinds and Any not in kinds


def show(value: Any) -> str:
    """Return a value as YAML for a message, shortened to 60 characters."""
    return shortened(as_yaml(value), 60)


def as_yaml(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(as_yaml(item) for item in value) + "]"
    if isinstance(value, str):
        return repr(value)
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def describe_type(annotation: Any) -> str:
    """Describe in words what an annotation takes."""
    members = _members(annotation)
    words = list(dict.fromkeys(_word(member) for member in members if member is not type(None)))
    choices = [show(choice).strip("'") for member in members for choice in _choices(member)]
    if choices:
        several = "one of " if len(choices) > 1 else ""
        words = [*(word for word in words if word), several + ", ".join(choices)]
    if type(None) in members:
        words.append("null")
    return " or ".join(word for word in words if word) or "a value"


def json_schema(annotation: Any) -> dict[str, Any]:
    return _adapter(_readable(annotation)).json_schema()


_WORDS: Mapping[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    dict: "a mapping",
    Any: "a value",
}


def _word(member: Any) -> str:
    if typing.get_origin(member) is Literal:
        return ""
    inner = [part for part in typing.get_args(member) if part is not Ellipsis]
    if _is_sequence(member):
        many = {"an integer": "integers", "a number": "numbers", "a string": "strings"}
        items = describe_type(inner[0]) if inner else ""
        length = (
            f"{len(inner)} " if typing.get_origin(member) is tuple and Ellipsis not in typing.get_args(member) else ""
        )
        return f"a list of {length}{many.get(items, 'values')}"
    return _WORDS.get(typing.get_origin(member) or member, getattr(member, "__name__", str(member)))


def _choices(member: Any) -> tuple[Any, ...]:
    return typing.get_args(member) if typing.get_origin(member) is Literal else ()


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, without the metadata of Annotated."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in _members(part)]
    return [annotation]


def _is_sequence(member: Any) -> bool:
    origin = typing.get_origin(member) or member
    return inspect.isclass(origin) and issubclass(origin, Sequence) and origin is not str


def _validated(value: Any, annotation: Any) -> Any:
    # As JSON, a list is also a tuple or any other sequence, and strictness still holds for all else.
    return _adapter(annotation).validate_json(json.dumps(value), strict=True)


def _whole(value: Any) -> Any:
    """Return the value with floats such as 10.0 as integers."""
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else value


def _parts(value: Any) -> Iterator[Any]:
    """Yield the values in a list and in the lists within it."""
    if isinstance(value, list):
        yield from itertools.chain.from_iterable(map(_parts, value))
    else:
        yield value


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _readable(annotation: Any) -> Any:
    """Return the annotation without types that YAML cannot express: `float` for `float | Tensor`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        kept = [part for part in map(_readable, arguments) if part is not Any]
        return Union[tuple(kept)] if kept else Any  # noqa: UP007
    if origin is tuple:
        return tuple[tuple(part if part is Ellipsis else _readable(part) for part in arguments)]  # type: ignore[misc]
    try:
        _adapter(annotation)
    except (PydanticUserError, TypeError, NameError):
        return Any
    return annotation


def _invalid(value: Any, annotation: Any, error: ValidationError) -> InvalidValue:
    details = error.errors(include_url=False, include_input=False, include_context=False)
    limits = [detail["msg"] for detail in details if detail["type"] in _LIMITS]
    if limits:
        return InvalidValue(f"{re.sub(r'^[A-Z][a-z]+ should', 'must', limits[0])}, got {show(value)}.")
    return InvalidValue(f"expected {describe_type(annotation)}, got {show(value)}.", _way_out(value, annotation))


_LIMITS = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of", "value_error"}
    | {"string_too_short", "string_too_long", "string_pattern_mismatch"}
)


def _way_out(value: Any, annotation: Any) -> str:
    members = _members(annotation)
    if any(_is_sequence(member) for member in members) and not isinstance(value, list):
        return f"Write {show([value])}." if value is not None else "Leave it out."
    if not isinstance(value, str):
        return ""
    choices = [str(choice) for member in members for choice in _choices(member)]
    if choices:
        near = did_you_mean(value, choices)
        return near if near.startswith("Did") else ""
    if bool in members and value.lower() in ("yes", "no", "on", "off", "y", "n", "true", "false"):
        return "Write true or false." if value.lower() not in ("true", "false") else "Remove the quotes."
    if (int in members or float in members) and _is_number(value):
        return "Remove the quotes."
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
