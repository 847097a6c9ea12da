"""JSON documents that are read into dataclasses by pydantic, with a message that names the wrong place."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, TypeAdapter, ValidationError

Document = TypeVar("Document")
Scalar = float | int | str | bool | None


class DocumentError(ValueError):
    """A text that is not the expected document: `contenders[0].points[3].lanes: expected a valid integer, got "x"`."""


def load(adapter: TypeAdapter[Document], text: str) -> Document:
    """Read a document. Types are not converted; unknown keys are ignored."""
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise DocumentError(_first_problem(error)) from None


def dump(adapter: TypeAdapter[Document], document: Document) -> str:
    """Return the text of a document. A number that is not finite is null."""
    return adapter.dump_json(document, indent=1).decode() + "\n"


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"]).lstrip(".")
    if first["type"] == "json_invalid":
        return f"not valid JSON ({first['ctx']['error']})"
    if first["type"] == "missing":
        return f"{place}: missing"
    expected = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1)
    return f"{place or 'the document'}: {expected}, got {first['input']!r:.60}"


def _single_value(value: Any) -> Scalar:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError("expected a single value")


def _finite_or_text(value: Scalar) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return value


# A number whose unknown value is NaN here and null in JSON.
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
# The value of an option. JSON has no infinity: it is written as in YAML.
OptionValue = Annotated[Scalar, PlainValidator(_single_value), PlainSerializer(_finite_or_text)]
