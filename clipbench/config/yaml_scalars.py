"""The plain words of YAML as values: which of them are numbers, true, false or null, and which are text."""

from __future__ import annotations

import math
import re
from typing import Any

from clipbench.config.values import InvalidValue

# YAML 1.2's core schema, which reads as people expect: `1e-3` is a number, `no` and `off` are words, a date
# is text. Beyond it, as in Python: `inf` and `nan` without a dot, `1_000`.
_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (rf"[-+]?{_DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.?(?:inf|Inf|INF)|\.?(?:nan|NaN|NAN)",
        list("-+.0123456789iInN"),
    ),
}
TAG = "tag:yaml.org,2002:"


def add_core_schema(resolver: Any) -> None:
    """Teach a loader or dumper class which plain words are not text."""
    resolver.yaml_implicit_resolvers = {}
    for name, (pattern, first) in _CORE.items():
        resolver.add_implicit_resolver(TAG + name, re.compile(rf"^(?:{pattern})$"), first)


def scalar(kind: str, text: str) -> Any:
    if kind in _CORE and not re.fullmatch(_CORE[kind][0], text):  # `!!int abc`
        raise InvalidValue(f"{_short(text)} is not a valid {kind}.", "Remove the tag.")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return _integer(text)
    return _float(text) if kind == "float" else text


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    if len(digits) < 25:  # Python refuses to convert thousands of digits
        number = int(digits, 0) if digits[:2] in ("0x", "0o") else int(digits)
        if abs(number) < 2**63:
            return number
    raise InvalidValue(f"{_short(text)} is too large for an integer.", "Write a float such as 1e20.")


def _float(text: str) -> float:
    name = text.lower().lstrip("+-").lstrip(".")
    if name == "nan":
        text = "NaN is not a valid value."
        raise InvalidValue(text, "Write null to turn an option off.")
    if name == "inf":
        return -math.inf if text.startswith("-") else math.inf
    number = float(text.replace("_", ""))
    if math.isinf(number):
        raise InvalidValue(f"{_short(text)} is too large for a number.", "Write inf for infinity.")
    return number


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:12]}... ({len(text)} characters)"
